"""Adapters that PEFT has written: they are those of mlx-lm with other names, transposed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import load
from d3mlx.distill.fuse import fuse
from d3mlx.errors import CheckpointError
from tests.builders import (
    DREAM_CONFIG,
    LLADA_CONFIG,
    dream_weights,
    llada_weights,
    write_dream,
    write_json,
    write_llada,
)
from tests.builders import write_weights as write_model

RANK, ALPHA = 4, 6
LAYERS = {
    "llada": ["model.transformer.blocks.0.q_proj", "model.transformer.blocks.1.ff_out"],
    "dream": ["model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"],
}
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "GSAI-ML/LLaDA-8B-Instruct",
    "bias": "none",
    "lora_alpha": ALPHA,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "r": RANK,
    "rank_pattern": {},
    "target_modules": ["q_proj", "ff_out"],
    "use_dora": False,
    "use_rslora": False,
}


def base(family: str, folder: Path) -> tuple[Path, dict[str, mx.array]]:
    if family == "llada":
        return write_llada(folder), llada_weights(LLADA_CONFIG)
    return write_dream(folder), dream_weights(DREAM_CONFIG)


def write_peft(folder: Path, family: str, weights: dict[str, mx.array], infix: str = "") -> dict[str, mx.array]:
    """Write random adapters. Return the product that each adds to its weight, before it is scaled."""
    folder.mkdir()
    write_json(folder / "adapter_config.json", CONFIG)
    arrays, products = {}, {}
    mx.random.seed(1)
    for layer in LAYERS[family]:
        out, width = weights[f"{layer}.weight"].shape
        down, up = mx.random.normal((RANK, width)) * 0.1, mx.random.normal((out, RANK)) * 0.1
        name = f"base_model.model.{layer}"
        arrays |= {f"{name}.lora_A{infix}.weight": down, f"{name}.lora_B{infix}.weight": up}
        products[f"{layer}.weight"] = up @ down
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), arrays)
    return products


def logits(model: Any) -> np.ndarray[Any, Any]:
    return np.array(model.logits(model.hidden(mx.arange(24)[None])))


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(("rslora", "infix"), [(False, ""), (True, ".default")])
def test_a_model_with_adapters_equals_the_merged_model(tmp_path: Path, family: str, rslora: bool, infix: str) -> None:
    folder, weights = base(family, tmp_path / "model")
    products = write_peft(tmp_path / "peft", family, weights, infix)
    write_json(tmp_path / "peft" / "adapter_config.json", CONFIG | {"use_rslora": rslora})
    factor = ALPHA / (math.sqrt(RANK) if rslora else RANK)
    merged = {name: value + factor * products[name] if name in products else value for name, value in weights.items()}
    expected_folder, _ = base(family, tmp_path / "merged")
    write_model(expected_folder, merged)
    expected, plain = logits(load(expected_folder)[0]), logits(load(folder)[0])
    assert np.abs(expected - plain).max() > 0.1
    assert np.abs(logits(load(folder, adapter_path=tmp_path / "peft")[0]) - expected).max() < 1e-3
    fuse(str(folder), tmp_path / "peft", tmp_path / "fused", dequantize=False)
    assert np.abs(logits(load(tmp_path / "fused")[0]) - expected).max() < 1e-3


def settings(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "adapter_config.json", CONFIG | changes)


def arrays(**changes: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        weights: Any = mx.load(str(path))
        mx.eval(weights)
        mx.save_safetensors(
            str(path), {**weights, **{name.replace("/", "."): value for name, value in changes.items()}}
        )

    return write


NAME = "base_model/model/model/transformer/blocks/0/"
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another kind": (settings(peft_type="IA3"), "type IA3"),
    "dora": (settings(use_dora=True), "use_dora = True"),
    "biases": (settings(bias="all"), "bias = 'all'"),
    "whole modules": (settings(modules_to_save=["lm_head"]), "modules_to_save"),
    "different ranks": (settings(rank_pattern={"q_proj": 8}), "rank_pattern"),
    "no rank": (settings(r=None), "r = None"),
    "pickled": (
        lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
        "pickled code",
    ),
    "nothing": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "contains no adapter_model.safetensors",
    ),
    "damage": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"{"), "truncated or damaged"),
    "integers": (arrays(**{f"{NAME}q_proj/lora_A/weight": mx.ones((4, 64), mx.int32)}), "as I32"),
    "embedding": (arrays(**{"base_model/model/wte/lora_embedding_A": mx.ones((4, 4))}), "lora_embedding_A"),
    "no such layer": (arrays(**{f"{NAME}gate/lora_A/weight": mx.ones((4, 64))}), "blocks.0.gate"),
    "a norm": (arrays(**{f"{NAME}attn_norm/lora_A/weight": mx.ones((4, 64))}), "input_layernorm"),
    "half": (
        arrays(**{f"{NAME}k_proj/lora_A/weight": mx.ones((4, 64))}),
        "no lora_b for model.layers.0.self_attn.k_proj",
    ),
    "another width": (arrays(**{f"{NAME}q_proj/lora_A/weight": mx.ones((4, 63))}), r"lora_a of shape \[63, 4\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_unsupported_adapters_are_refused_by_name(tmp_path: Path, name: str) -> None:
    break_it, culprit = WRONG[name]
    folder, weights = base("llada", tmp_path / "model")
    write_peft(tmp_path / "peft", "llada", weights)
    break_it(tmp_path / "peft")
    with pytest.raises(CheckpointError, match=culprit) as caught:
        load(folder, adapter_path=tmp_path / "peft")
    assert "\n" not in str(caught.value)
