"""Tests of training runs from a configuration: resume, adapters, gradients, batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_adapters

from d3mlx import load
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.loader import lazy_model
from d3mlx.distill.adapters import checkpointed, make_trainable
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.examples import Example, Order, load_examples, pad
from d3mlx.distill.fuse import fuse
from d3mlx.distill.masking import hide
from d3mlx.distill.objectives import Distillation, PlainTraining
from d3mlx.distill.run import distill
from d3mlx.errors import ConfigError
from tests.distill.runs import arrays, config_for, quiet


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3, "objective": "sft"}, {"grad_checkpoint": True}], ids=str)
def test_a_killed_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, llada: Path, recorded: Path, changes: dict[str, Any]
) -> None:
    complete, resumed = (
        config_for(llada, recorded, tmp_path / name, iters=5, **changes) for name in ("complete", "resumed")
    )
    distill(complete, quiet)
    distill(resumed, quiet, stop_after=3)
    with pytest.raises(ConfigError, match="--resume"):
        distill(resumed, quiet)
    with pytest.raises(ConfigError, match="rank 4, not 8"):
        distill(replace(resumed, rank=8), quiet, resume=True)
    distill(resumed, quiet, resume=True)
    ours, theirs = (arrays(tmp_path / name / "adapters.safetensors") for name in ("resumed", "complete"))
    limit = 0.0 if mx.default_device() == mx.Device(mx.cpu) else 1e-5
    assert all(np.abs(ours[name] - theirs[name]).max() <= limit for name in theirs)
    assert max(np.abs(theirs[name]).max() for name in theirs if name.endswith("lora_b")) > 0.01
    names = {path.name for path in (tmp_path / "complete").iterdir()}
    assert {f"{step:07d}_adapters.safetensors" for step in (2, 4, 5)} <= names
    assert not any("partial" in name for name in names)
    records = [json.loads(line) for line in (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert {"loss", "mask_ratio", "tokens_per_second", "peak_memory"} <= records[0].keys()
    assert json.loads((tmp_path / "complete" / "distill.json").read_text())["seed"] == 42


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_adapters_load_in_mlx_lm_and_can_be_fused(
    tmp_path: Path, llada: Path, dream: Path, data: Path, family: str
) -> None:
    folder = {"llada": llada, "dream": dream}[family]
    config = config_for(folder, data, tmp_path / "a", iters=2, num_layers=1, targets="q_proj,up_proj", preset=family)
    distill(config, quiet)
    ours, _ = load(folder, adapter_path=tmp_path / "a")
    theirs = load_adapters(load(folder)[0], str(tmp_path / "a"))
    fuse(str(folder), tmp_path / "a", tmp_path / "fused", dequantize=False)
    fused, tokenizer = load(tmp_path / "fused")
    ids = mx.array(tokenizer.encode("say seven"))[None]
    logits, plain = ours.logits(ours.hidden(ids)), load(folder)[0]
    assert mx.array_equal(logits, theirs.logits(theirs.hidden(ids)))
    assert mx.allclose(logits, fused.logits(fused.hidden(ids)), atol=1e-3)
    assert not mx.allclose(logits, plain.logits(plain.hidden(ids)), atol=1e-2)
    adapted = {name.rsplit(".", 1)[0] for name in arrays(tmp_path / "a" / "adapters.safetensors")}
    assert adapted == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
    with pytest.raises(ConfigError, match="already exists"):
        fuse(str(folder), tmp_path / "a", tmp_path / "fused", dequantize=False)


def test_full_fine_tuning(tmp_path: Path, llada: Path, data: Path) -> None:
    distill(config_for(llada, data, tmp_path / "a", iters=2, fine_tune_type="full", learning_rate=1e-3), quiet)
    tuned, _ = load(llada, adapter_path=tmp_path / "a")
    fuse(str(llada), tmp_path / "a", tmp_path / "fused", dequantize=False)
    fused, _ = load(tmp_path / "fused")
    plain, _ = load(llada)
    before, after = dict(tree_flatten(plain.parameters())), dict(tree_flatten(tuned.parameters()))  # type: ignore[attr-defined]
    assert all(not mx.array_equal(before[name], after[name]) for name in before)
    assert all(mx.array_equal(value, after[name]) for name, value in tree_flatten(fused.parameters()))  # type: ignore[attr-defined]


def test_lora_on_quantized_weights(tmp_path: Path, quantized: Path, data: Path) -> None:
    """Adapters on 4-bit layers get gradients. Fusing reports the rounding error, or writes floats."""
    config = config_for(quantized, data, tmp_path / "a", iters=1)
    model, tokenizer = lazy_model(open_checkpoint(quantized)), load(quantized)[1]
    make_trainable(model, config, quantized=True)
    examples = load_examples(config, model, tokenizer)
    objective = Distillation(examples, config, model, 257)

    def loss(weights: Any) -> Any:
        model.update(weights)
        return objective.loss(model, objective.passes(0)[0])[0]

    gradients = dict(tree_flatten(mx.grad(loss)(model.trainable_parameters())))
    assert {name.rsplit(".", 1)[1] for name in gradients} == {"lora_a", "lora_b"}
    assert all(mx.abs(g).max().item() > 0 for name, g in gradients.items() if name.endswith("lora_b"))
    with pytest.raises(ConfigError, match="Cannot train"):
        make_trainable(model, replace(config, fine_tune_type="full"), quantized=True)

    distill(config, quiet)
    rounded = fuse(str(quantized), tmp_path / "a", tmp_path / "rounded", dequantize=False)
    plain = fuse(str(quantized), tmp_path / "a", tmp_path / "plain", dequantize=True)
    assert rounded.layers == 14
    assert (rounded.error > 0, plain.error, plain.change == rounded.change) == (True, 0, True)
    tuned, _ = load(quantized, adapter_path=tmp_path / "a")
    exact, _ = load(tmp_path / "plain")
    ids = mx.arange(30)[None]
    assert mx.allclose(tuned.hidden(ids), exact.hidden(ids), atol=1e-2)
    assert open_checkpoint(tmp_path / "plain").quantization is None
    assert open_checkpoint(tmp_path / "rounded").quantization is not None


def test_gradient_checkpointing_keeps_gradients_and_restores_the_layer_class(llada: Path, data: Path) -> None:
    config = config_for(llada, data, Path("unused"))
    model, tokenizer = load(llada)
    network: Any = model
    make_trainable(network, config, quantized=False)
    objective = PlainTraining(load_examples(config, model, tokenizer), config, model, 257)
    batch, start = objective.passes(0)[0], network.trainable_parameters()
    kind = type(model.layers[0])
    plain = kind.__call__

    def loss(weights: Any) -> Any:
        network.update(weights)
        return objective.loss(model, batch)[0]

    expected = dict(tree_flatten(mx.grad(loss)(start)))
    with pytest.raises(RuntimeError), checkpointed(network, True):
        assert kind.__call__ is not plain
        gradients = dict(tree_flatten(mx.grad(loss)(start)))
        mx.eval(gradients)
        raise RuntimeError
    assert kind.__call__ is plain
    assert all(mx.allclose(gradients[name], g, atol=1e-6) for name, g in expected.items())


def test_the_loss_of_plain_training_is_the_published_bound(llada: Path, data: Path) -> None:
    """The loss is the cross-entropy / mask probability / length of the answer, averaged over sequences."""
    config = config_for(llada, data, Path("unused"), grad_accumulation_steps=1, objective="sft")
    model, tokenizer = load(llada)
    objective = PlainTraining(load_examples(config, model, tokenizer), config, model, 257)
    (batch,) = objective.passes(3)
    expected = 0.0
    for sequence, time, noisy in zip(
        objective.sequences(3, 0), objective.times(3, 0), np.array(batch.ids), strict=True
    ):
        lost = np.flatnonzero(noisy == model.args.mask_token_id)
        assert lost.min() >= sequence.prompt
        logits = np.array(model.logits(model.hidden(mx.array(noisy)[None])))[0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected -= logs[lost, sequence.ids[lost]].sum() / time / (len(noisy) - sequence.prompt)
    assert objective.loss(model, batch)[0].item() == pytest.approx(expected / 2, rel=1e-4)


def test_every_row_occurs_once_per_epoch(llada: Path) -> None:
    config = DistillConfig(batch_size=2, grad_accumulation_steps=3)
    order = Order(9, config)
    seen = [row for step in range(3) for micro in range(3) for row in order.batch(step, micro)]
    assert sorted(seen[:9]) == sorted(seen[9:]) == list(range(9))
    assert seen[:9] != seen[9:]
    assert order.epoch(3) == 2.0


def test_batches_have_the_length_of_dream_training(dream: Path) -> None:
    model, _ = load(dream)
    config = DistillConfig(max_length=60, response_length=20)
    ranks = np.arange(50, dtype=np.int32)
    examples = [Example(np.arange(p + n, dtype=np.int32), p, "x", ranks) for p, n in ((5, 10), (12, 30))]
    short, long = pad(examples, config, model, 256)
    assert len(short.ids) == len(long.ids) == 32
    assert (short.full, long.full) == (15, 32)
    assert short.ids[15:].tolist() == [256] * 17
    assert short.order is not None and long.order is not None
    assert short.order[4:8].tolist() == [-1, 0, 1, 2]
    assert hide(short, 5, 10, np.ones(5, np.bool_), 9).lost.sum() == 5
