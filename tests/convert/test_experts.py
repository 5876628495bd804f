"""Conversion of a mixture of experts: one array per layer, and a router that nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.utils import load_model

from d3mlx.convert import convert
from d3mlx.convert.recipe import Quantization, Recipe
from d3mlx.errors import CheckpointError
from d3mlx.models import get_model_classes
from tests.builders import write_weights
from tests.replicas import LLADA2_CONFIG, llada2, llada2_weights

RECIPES = {
    "as stored": Recipe(),
    "float16": Recipe(dtype="float16"),
    "4 bits": Recipe(Quantization(bits=4, group_size=32)),
    "mxfp4": Recipe(Quantization(mode="mxfp4")),
}


@pytest.mark.parametrize("name", RECIPES)
def test_experts_are_stacked_and_the_router_is_as_stored(tmp_path: Path, name: str) -> None:
    folder = llada2(tmp_path / "model")
    convert(folder, tmp_path / "out", RECIPES[name], max_shard_bytes=100_000)
    net, config = load_model(tmp_path / "out", get_model_classes=get_model_classes)
    moe, stored = net.layers[1].mlp, llada2_weights(LLADA2_CONFIG)
    gate = "model.layers.1.mlp.gate"
    assert mx.array_equal(moe.gate.weight, stored[f"{gate}.weight"])
    assert (moe.gate.weight.dtype, moe.gate.expert_bias.dtype) == (mx.bfloat16, mx.float32)
    assert mx.array_equal(moe.gate.expert_bias, stored[f"{gate}.expert_bias"])
    for part in ("gate_proj", "up_proj", "down_proj"):
        experts = [stored[f"model.layers.1.mlp.experts.{i}.{part}.weight"] for i in range(16)]
        layer = moe.switch_mlp[part]
        if "scales" in layer:
            rows = [mx.quantize(expert, layer.group_size, layer.bits, layer.mode)[0] for expert in experts]
            assert mx.array_equal(layer.weight, mx.stack(rows))
        else:
            expected = mx.stack(experts).astype(layer.weight.dtype)
            assert mx.array_equal(layer.weight, expected)
    assert isinstance(net.layers[1].self_attn.qkv_proj, nn.QuantizedLinear) == ("quantization" in config)
    ids = mx.arange(20)[None]
    original, _ = load_model(folder, get_model_classes=get_model_classes)
    for each in (net, original):
        # On a CPU, MLX multiplies experts only in float32.
        each.set_dtype(mx.float32)
    difference = np.abs(np.array((net(ids) - original(ids)).astype(mx.float32)))
    assert difference.max() < (0.2 if "quantization" not in config else 30)


def test_memory_has_at_most_the_stacked_experts_of_one_projection(tmp_path: Path) -> None:
    """The largest array of a conversion is that of one projection of all experts."""
    sizes = {"num_experts": 64, "moe_intermediate_size": 256, "num_hidden_layers": 12, "hidden_size": 64}
    folder = llada2(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(LLADA2_CONFIG | sizes))
    for file in folder.glob("model*"):
        file.unlink()
    write_weights(folder, llada2_weights(LLADA2_CONFIG | sizes))
    stacked = 64 * 256 * 64 * 2
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    summary = convert(folder, tmp_path / "out", Recipe(Quantization(bits=4, group_size=64)), max_shard_bytes=stacked)
    assert mx.get_peak_memory() - before < 5 * stacked < summary.nbytes
    assert 4.5 < summary.bits_per_weight < 4.8


def without(folder: Path, change: Any) -> Path:
    weights = llada2_weights(LLADA2_CONFIG)
    change(weights)
    for file in folder.glob("model*"):
        file.unlink()
    write_weights(folder, weights)
    return folder


EXPERT = "model.layers.1.mlp.experts.7.up_proj.weight"


def test_damaged_experts_are_named(tmp_path: Path) -> None:
    folder = llada2(tmp_path / "model")
    with pytest.raises(CheckpointError, match="not the same tensor of expert 7"):
        convert(without(folder, lambda weights: weights.pop(EXPERT)), tmp_path / "out")
    others = {r"\[63, 64\]": mx.zeros((63, 64), mx.bfloat16), r"\[64, 64\] and dtype F32": mx.zeros((64, 64))}
    for text, other in others.items():
        with pytest.raises(CheckpointError, match=rf"experts\.7\.up_proj\.weight has shape {text}"):
            convert(without(folder, lambda weights, other=other: weights.update({EXPERT: other})), tmp_path / "out")
    last = EXPERT.replace(".7.", ".15.")
    with pytest.raises(CheckpointError, match=r"has shape \[15, 64, 64\], but config.json requires \[16, 64, 64\]"):
        convert(without(folder, lambda weights: weights.pop(last)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
