"""Logits of iLLaDA, compared with an independent forward in NumPy, and with the reference of a Llama block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_config, load_model

from d3mlx.models import get_model_classes, illada
from tests.golden.cases import FOLDER
from tests.replicas import illada_folder


def norm(x: Any, weight: Any, eps: float) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotated(x: Any, theta: float) -> Any:
    """Return rows [heads, L, head_dim] rotated by their positions, with the halves of a head as pairs."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def logits_of(config: dict[str, Any], weights: dict[str, Any], ids: Any) -> Any:
    """Return the logits [L, V] of ids [L] in float64: every position attends to every position."""
    heads, kv_heads, eps = config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]
    x = weights["model.embed_tokens.weight"][ids]
    for i in range(config["num_hidden_layers"]):
        layer = {name: weights[f"model.layers.{i}.{name}.weight"] for name in LAYER}
        h = norm(x, layer["input_layernorm"], eps)
        q, k, v = (
            (h @ layer[f"self_attn.{name}_proj"].T).reshape(len(ids), count, -1).swapaxes(0, 1)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = rotated(q, config["rope_theta"]), rotated(k, config["rope_theta"])
        k, v = (np.repeat(rows, heads // kv_heads, 0) for rows in (k, v))
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + mixed.swapaxes(0, 1).reshape(len(ids), -1) @ layer["self_attn.o_proj"].T
        h = norm(x, layer["post_attention_layernorm"], eps)
        gate = h @ layer["mlp.gate_proj"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["mlp.up_proj"].T)) @ layer["mlp.down_proj"].T
    return norm(x, weights["model.norm.weight"], eps) @ weights["model.embed_tokens.weight"].T


LAYER = ("input_layernorm", "post_attention_layernorm")
LAYER += tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
)


def test_logits_equal_those_of_numpy(tmp_path: Path) -> None:
    folder = illada_folder(tmp_path)
    stored: Any = mx.load(str(folder / "model.safetensors"))
    weights = {name: np.array(value.astype(mx.float32), np.float64) for name, value in stored.items()}
    net: Any = load_model(folder, get_model_classes=get_model_classes)[0]
    net.set_dtype(mx.float32)
    ids = np.array([5, 40, 7, 5, 261, 5, 90, 91, 5])
    ours = np.array(net(mx.array(ids)[None]))[0]
    expected = logits_of(load_config(folder), weights, ids)
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


def test_one_block_of_the_reference_is_bidirectional() -> None:
    """The reference of Stable-DiffCoder has the same layers, and a sequence of one block has no mask."""
    data = np.load(FOLDER / "stable_diffcoder" / "logits.npz")
    folder = FOLDER / "stable_diffcoder" / "model"
    net = illada.Model(illada.ModelArgs.from_dict(load_config(folder)))
    net.load_weights(str(folder / "model.safetensors"))
    ids = data["full_2_ids"]
    assert len(ids) < data["full_2_block"]
    assert np.abs(np.array(net(mx.array(ids)[None]))[0] - data["full_2_logits"]).max() < 2e-4
