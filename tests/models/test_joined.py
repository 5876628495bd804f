"""Projections with the same input run as one product, and are found separately by everything that names layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from d3mlx import load
from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.checkpoints.loader import read_weights
from d3mlx.models import joined
from tests.builders import write_dream

IDS = mx.arange(12)[None]
LORA: dict[str, Any] = {"rank": 2, "scale": 4.0, "dropout": 0.0, "keys": ["self_attn.k_proj"]}


def model_of(family: str = "dream", bits: int | None = None) -> Any:
    model: Any = random_model(Sizes(family, layers=3, hidden=64, heads=4, kv_heads=2, ff=128, vocab=64))
    if bits:
        nn.quantize(model, 32, bits)
    return model


def products(model: Any) -> list[bool]:
    """Return for each layer whether attention, and whether the MLP, runs joined in a forward."""
    mx.eval(model.hidden(IDS))
    return [part.joined.whole is not None for layer in model.layers for part in (layer.self_attn, layer.mlp)]


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
def test_joined_layers_compute_the_same_under_the_same_names(family: str, bits: int | None) -> None:
    model = model_of(family, bits)
    before, separate = dict(tree_flatten(model.parameters())), model.hidden(IDS)
    mx.eval(before, separate)
    read_weights(model)
    assert products(model) == [True] * 6
    after = dict(tree_flatten(model.parameters()))
    assert after.keys() == before.keys()
    assert all(mx.array_equal(after[name], before[name]) for name in before)
    assert mx.allclose(model.hidden(IDS), separate, atol=1e-5)


def test_a_layer_that_gets_other_weights_runs_separately() -> None:
    model, other = model_of(), model_of()
    read_weights(model)
    weight = other.layers[1].self_attn.v_proj.weight
    model.layers[1].self_attn.v_proj.weight = weight
    expected = model_of()
    expected.update(model.parameters())
    assert mx.allclose(model.hidden(IDS), expected.hidden(IDS), atol=1e-5)
    assert products(model) == [True, True, False, True, True, True]


@pytest.mark.parametrize(("bits", "name"), [(None, "bias"), (4, "scales"), (4, "biases"), (4, "bias")])
def test_any_other_array_of_a_layer_takes_effect(bits: int | None, name: str) -> None:
    model = model_of("dream", bits)
    read_weights(model)
    before = model.hidden(IDS)
    layer = model.layers[0].self_attn.v_proj
    layer[name] = layer[name] + 0.5
    after = model.hidden(IDS)
    assert not mx.allclose(after, before, atol=1e-3)
    assert products(model) == [False, True, True, True, True, True]
    other = model_of("dream", bits)
    other.update(model.parameters())
    assert mx.allclose(after, other.hidden(IDS), atol=1e-5)


def test_a_layer_with_an_adapter_runs_separately() -> None:
    model = model_of()
    read_weights(model)
    before = model.hidden(IDS)
    linear_to_lora_layers(model, 1, LORA)
    adapted = model.layers[2].self_attn.k_proj
    adapted.lora_b = mx.random.normal(adapted.lora_b.shape)
    assert not mx.allclose(model.hidden(IDS), before, atol=1e-3)
    assert products(model) == [True, True, True, True, False, True]


def test_layers_that_differ_stay_separate() -> None:
    model = model_of()
    quantized = {"layers.0.self_attn.q_proj": 4, "layers.0.self_attn.k_proj": 8, "layers.1.mlp.up_proj": 4}

    def packed(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        bits = next((bits for name, bits in quantized.items() if path.endswith(name)), None)
        return {"group_size": 32, "bits": bits} if bits else False

    nn.quantize(model, class_predicate=packed)
    before = model.hidden(IDS)
    read_weights(model)
    assert products(model) == [False, True, True, False, True, True]
    assert mx.allclose(model.hidden(IDS), before, atol=1e-5)


def test_gradients_reach_every_projection() -> None:
    model = model_of()
    read_weights(model)

    def loss(model: Any) -> mx.array:
        return mx.square(model.hidden(IDS)).sum()

    joined_loss = loss(model)
    value, gradients = nn.value_and_grad(model, loss)(model)
    assert mx.allclose(value, joined_loss, rtol=1e-4)
    for name, gradient in tree_flatten(gradients):
        assert mx.abs(gradient).max() > 0 or "lm_head" in name, name


def test_loading_holds_at_most_one_layer_twice(tmp_path: Path) -> None:
    folder = write_dream(tmp_path / "model", num_hidden_layers=12, hidden_size=256, intermediate_size=512)
    model, _ = load(folder)
    total = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
    layer = sum(value.nbytes for _, value in tree_flatten(model.layers[0].parameters()))
    assert products(model) == [True] * 24
    del model
    mx.synchronize()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    loaded = load(folder)
    assert loaded[0].model is not None
    assert mx.get_active_memory() - before < total + 0.5 * layer
    # Weights in 16 bits become float32 here, so a layer that is read also has its halves.
    assert mx.get_peak_memory() - before < total + 2 * layer


def test_a_view_of_joined_weights_is_what_saving_writes(tmp_path: Path) -> None:
    model = model_of()
    read_weights(model)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(tmp_path / "weights.safetensors"), weights)
    again: Any = mx.load(str(tmp_path / "weights.safetensors"))
    assert all(np.array_equal(np.array(again[name]), np.array(weights[name])) for name in weights)
    assert joined.kind_of(nn.Embedding(4, 4)) is None
