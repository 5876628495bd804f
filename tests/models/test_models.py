"""Logits of the two families, compared with the reference: complete sequences, and reuse of keys and values."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from d3mlx.cache import CachedLayer, KVCache, RowIndex
from d3mlx.errors import CheckpointError
from d3mlx.models import get_model_classes, llada
from d3mlx.models.transformer import Shape, Transformer
from tests.golden.cases import FOLDER, model

TOLERANCE = 2e-4
TINY: dict[str, Any] = {
    "model_type": "llada",
    "d_model": 64,
    "n_layers": 1,
    "n_heads": 4,
    "vocab_size": 50,
    "mask_token_id": 49,
    "eos_token_id": 48,
}


def logits_of(family: str, ids: Any, positions: Any = 0) -> Any:
    net = model(family)
    return np.array(net.logits(net.hidden(mx.array(ids)[None], positions)))[0]


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_whole_sequences(family: str) -> None:
    data = np.load(FOLDER / family / "logits.npz")
    for name in ("full_0", "full_1", "full_2"):
        assert np.abs(logits_of(family, data[f"{name}_ids"]) - data[f"{name}_logits"]).max() < TOLERANCE


@pytest.mark.parametrize("shape", ["model_gqa", "model_tied"])
def test_grouped_heads_and_tied_padded_vocabulary(shape: str) -> None:
    data = np.load(FOLDER / "llada" / shape / "logits.npz")
    net, _ = load_model(FOLDER / "llada" / shape, get_model_classes=get_model_classes)
    assert np.abs(np.array(net(mx.array(data["ids"])[None]))[0] - data["logits"]).max() < TOLERANCE


def test_left_padding_only_shifts_positions() -> None:
    """The reference masks padding and does not correct positions, so the valid rows alone give the same logits."""
    data = np.load(FOLDER / "dream" / "logits.npz")
    first = int(np.flatnonzero(data["leftpad_mask"])[0])
    ours = logits_of("dream", data["leftpad_ids"][first:], first)
    assert np.abs(ours - data["leftpad_logits_nonpad_rows"]).max() < TOLERANCE


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("scattered", [False, True])
def test_key_value_reuse(family: str, scattered: bool) -> None:
    data = np.load(FOLDER / family / "logits.npz")
    cached, first, second = int(data["kv_cached_len"]), data["kv_ids_first"], data["kv_ids_second"]
    net, length = model(family), len(first)
    cache = KVCache(len(net.layers))
    everything = RowIndex(np.arange(length, dtype=np.int32), length)
    hidden = net.hidden(mx.array(first)[None], everything.positions, cache.open(everything, first))
    assert np.abs(np.array(net.logits(hidden))[0] - data["kv_first_logits"]).max() < TOLERANCE
    layer = cache.layers[0]
    assert isinstance(layer, CachedLayer)
    keys, values = layer.arrays[0]
    assert np.abs(np.array(keys[0, :, :cached]) - data["kv_k_layer0"]).max() < 1e-5
    assert np.abs(np.array(values[0, :, :cached]) - data["kv_v_layer0"]).max() < 1e-5
    tail = RowIndex(np.arange(cached, length, dtype=np.int32), length)
    if scattered:
        tail.index = mx.array(tail.positions)
    hidden = net.hidden(mx.array(second[cached:])[None], tail.positions, cache.open(tail, second[cached:]))
    assert np.abs(np.array(net.logits(hidden))[0] - data["kv_second_tail_logits"]).max() < TOLERANCE


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_attention_is_bidirectional(family: str) -> None:
    """A late token changes the logits of an early position."""
    ids = np.arange(12) + 3
    changed = ids.copy()
    changed[-1] = 77
    assert np.abs(logits_of(family, ids)[0] - logits_of(family, changed)[0]).max() > 1e-3


def test_config_variants() -> None:
    one_head = llada.ModelArgs.from_dict({**TINY, "multi_query_attention": True})
    assert one_head.shape().kv_heads == 1
    plain = llada.ModelArgs.from_dict({**TINY, "mlp_hidden_size": None, "mlp_ratio": 3, "n_kv_heads": None})
    assert (plain.shape().ff, plain.shape().kv_heads) == (192, 4)
    with pytest.raises(CheckpointError, match="alibi"):
        llada.ModelArgs.from_dict({**TINY, "alibi": True})
    with pytest.raises(CheckpointError, match="inconsistent"):
        llada.ModelArgs.from_dict({**TINY, "n_heads": 5})
    with pytest.raises(CheckpointError, match="gpt2"):
        get_model_classes({"model_type": "gpt2"})


def test_embedding_and_logit_scales() -> None:
    """input_emb_norm multiplies embeddings by sqrt(d_model), scale_logits divides logits by it."""
    plain = llada.Model(llada.ModelArgs.from_dict(TINY))
    scaled = llada.Model(llada.ModelArgs.from_dict({**TINY, "input_emb_norm": True, "scale_logits": True}))
    scaled.update(plain.parameters())
    ids = mx.array([[1, 2, 3]])
    expected = plain.logits(plain.model(ids, 0, None, 8.0)) / 8
    assert mx.allclose(scaled(ids), expected, atol=1e-5)


def test_heads_may_be_wider_than_the_model() -> None:
    shape = Shape(
        hidden=24,
        layers=1,
        heads=4,
        kv_heads=2,
        head_dim=16,
        ff=32,
        eps=1e-6,
        rope_theta=1e4,
        qkv_bias=True,
        context=64,
    )
    body = Transformer(shape, 50)
    attention = body.layers[0].self_attn
    assert attention.q_proj.weight.shape == (64, 24)
    assert attention.k_proj.weight.shape == (32, 24)
    assert attention.o_proj.weight.shape == (24, 64)
    assert body(mx.array([[1, 2, 3]])).shape == (1, 3, 24)
