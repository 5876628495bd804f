"""Rotary positions of every kind in a config.json are read from all possible fields, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import generate, load
from d3mlx.decoding.presets import presets_for
from d3mlx.errors import CheckpointError
from d3mlx.models import dream, llada
from tests.builders import DREAM_CONFIG, LLADA_CONFIG, write_dream, write_llada

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear", "factor": 4.0},
    "llama3": LLAMA3,
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}


def args_of(**changes: Any) -> Any:
    config = DREAM_CONFIG | changes
    return dream.ModelArgs.from_dict({name: value for name, value in config.items() if value is not ...})


@pytest.mark.parametrize("decoder", presets_for(dream.TRAITS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder_runs_with_every_kind(tmp_path: Path, kind: str, decoder: str) -> None:
    model, tokenizer = load(write_dream(tmp_path / "model", rope_scaling=KINDS[kind]))
    result = generate(model, tokenizer, "hello", decoder, max_tokens=24)
    assert result.stats.forwards


@pytest.mark.parametrize("kind", KINDS)
def test_rows_at_scattered_positions_equal_those_at_consecutive_ones(tmp_path: Path, kind: str) -> None:
    model: Any = load(write_dream(tmp_path / "model", rope_scaling=KINDS[kind]))[0]
    ids = mx.arange(40)[None]
    run, scattered = model.hidden(ids, 100), model.hidden(ids, np.arange(100, 140, dtype=np.int32))
    assert np.allclose(run, scattered, atol=1e-4)
    plain: Any = load(write_dream(tmp_path / "plain"))[0]
    assert not np.allclose(run, plain.hidden(ids, 100), atol=1e-2)


def test_linear_positions_are_divided(tmp_path: Path) -> None:
    scaled: Any = load(write_dream(tmp_path / "scaled", rope_scaling=KINDS["linear"]))[0]
    plain: Any = load(write_dream(tmp_path / "plain"))[0]
    ids = mx.array([[5, 9, 30]])
    assert np.allclose(scaled.hidden(ids, np.array([0, 4, 400])), plain.hidden(ids, np.array([0, 1, 100])), atol=1e-3)


def test_rope_parameters_of_transformers_5_are_read() -> None:
    theta = {"rope_type": "default", "rope_theta": 5e5}
    alone = args_of(rope_theta=..., rope_scaling=..., rope_parameters=theta)
    assert (alone.rope_theta, alone.rope_scaling) == (5e5, None)
    nested = args_of(rope_theta=..., rope_scaling=..., rope_parameters={"full_attention": theta | LLAMA3})
    assert nested.rope_scaling == LLAMA3
    both = args_of(rope_theta=5e5, rope_scaling=LLAMA3, rope_parameters=theta | LLAMA3)
    assert (both.rope_theta, both.rope_scaling) == (5e5, LLAMA3)
    parameters = {"rope_type": "default", "rope_theta": 1e4}
    config = {name: value for name, value in LLADA_CONFIG.items() if name != "rope_theta"}
    assert llada.ModelArgs.from_dict(config | {"rope_parameters": parameters}).rope_theta == 1e4


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "kind 'dynamic'"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6}}, "kind 'longrope'"),
    "no factor": ({"rope_scaling": {"type": "linear"}}, "'linear' without factor"),
    "factor 0": ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor = 0"),
    "factor a text": ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor = '2'"),
    "more": ({"rope_scaling": LLAMA3 | {"attention_factor": 2.0}}, "attention_factor = 2.0"),
    "part of a head": ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    "two thetas": ({"rope_parameters": {"rope_theta": 2.0}}, "two values of rope_theta"),
    "two kinds": ({"rope_scaling": LLAMA3, "rope_parameters": KINDS["yarn"]}, "two kinds of rotary positions"),
    "sliding": ({"rope_parameters": {"sliding_attention": {}, "full_attention": {}}}, "sliding_attention"),
    "a text": ({"rope_scaling": "yarn"}, "rope_scaling must be an object"),
    "sliding layers": ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    "window": ({"use_sliding_window": True}, "use_sliding_window = True"),
    "no bias": ({"attention_bias": False}, "attention_bias = False"),
    "experts": ({"num_experts": 64}, "num_experts = 64"),
}


@pytest.mark.parametrize("name", WRONG)
def test_unsupported_values_are_refused_by_name(name: str) -> None:
    changes, culprit = WRONG[name]
    with pytest.raises(CheckpointError) as caught:
        args_of(**changes)
    assert culprit in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"alibi": True}, "alibi = True"),
        ({"activation_type": "swiglu"}, "activation_type = 'swiglu'"),
        ({"clip_qkv": 8.0}, "clip_qkv = 8.0"),
    ],
)
def test_unsupported_values_of_a_llada_are_refused_by_name(changes: dict[str, Any], culprit: str) -> None:
    with pytest.raises(CheckpointError, match=culprit):
        llada.ModelArgs.from_dict(LLADA_CONFIG | changes)


def test_heads_may_have_another_width_than_hidden_size_gives(tmp_path: Path) -> None:
    model, tokenizer = load(write_dream(tmp_path / "model", head_dim=32))
    assert model.args.shape().query_width == 128
    assert generate(model, tokenizer, "hi", max_tokens=8).stats.forwards


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"architectures": ["LLaDAMoEModelLM"], "d_model": None, "hidden_size": 64}, "architecture LLaDAMoEModelLM"),
        ({"architectures": ["LLaDAMoEModelLM"], "num_experts": 64}, "num_experts = 64"),
    ],
)
def test_another_architecture_is_named(tmp_path: Path, changes: dict[str, Any], culprit: str) -> None:
    folder = write_llada(tmp_path / "model")

    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    with pytest.raises(CheckpointError, match=culprit):
        load(folder)
