"""Memory of a request: keys and values are updated in place, may be quantized, and are freed after the request."""

from __future__ import annotations

import gc
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import D3LLM, FastDLLM, Generation, Selective, generate
from d3mlx.cache import CachedLayer, KVCache, QuantizedLayer, RowIndex
from d3mlx.canvas import Canvas
from d3mlx.decoding.decoder import Decoder
from d3mlx.engine import decode, eligible_logits, forward
from d3mlx.errors import ConfigError
from d3mlx.quantization import KVQuantization
from d3mlx.request import Request
from tests.builders import LLADA_CONFIG, llada_model

LENGTH = 2100
ONE_BY_ONE: dict[str, Any] = {"threshold": 0.0, "block_add": 1.0, "activation": 1.0, "block_size": 4, "rows": 8}
"""Options with which a step commits one token."""


def model_of(layers: int, width: int = 64, heads: int = 1) -> Any:
    sizes = {"n_layers": layers, "d_model": width, "n_heads": heads, "n_kv_heads": heads, "mlp_hidden_size": 8}
    ids = {"vocab_size": 16, "embedding_size": 16, "mask_token_id": 15, "eos_token_id": 14}
    mx.random.seed(0)
    model = llada_model({**LLADA_CONFIG, **sizes, **ids, "max_sequence_length": 8192})
    mx.eval(model.parameters())
    return model


def above(model: Any, canvas: Canvas, decoder: Decoder, steps: int) -> list[tuple[int, int]]:
    """Return the active bytes after each step and its peak bytes, both minus the active bytes before the run."""
    gc.collect()
    mx.synchronize()
    before = mx.get_active_memory()
    sizes = []
    for index, _ in enumerate(decode(model, canvas, decoder), 1):
        mx.synchronize()
        sizes.append((mx.get_active_memory() - before, mx.get_peak_memory() - before))
        mx.reset_peak_memory()
        if index == steps:
            break
    return sizes


@pytest.mark.parametrize("kv_bits", [None, 8])
def test_steps_write_into_the_cache_and_nothing_grows(kv_bits: int | None) -> None:
    model = model_of(layers=2, width=32)
    whole = Selective(**ONE_BY_ONE, first_masks=LENGTH, kv_bits=kv_bits, kv_group_size=kv_bits and 32)
    # A first run makes the objects that a process makes only once, such as compiled functions.
    above(model, Canvas.for_prompt([1] * 4, LENGTH, 15, early_stop=False), whole.build("llada"), 3)
    sizes = above(model, Canvas.for_prompt([1] * 4, LENGTH, 15, early_stop=False), whole.build("llada"), 100)
    live, most = [np.array(column) for column in zip(*sizes, strict=True)]
    keys = (LENGTH + 4) * 32 * 4
    # The first step after the full pass may copy the arrays, which then have room to grow.
    # Steps differ by a few rows, and on a busy machine by arrays that an earlier step has not freed yet.
    assert live[2:].max() - live[2:].min() < 0.1 * keys
    middle = len(live) // 2
    assert abs(live[middle:].min() - live[2:middle].min()) < 0.01 * keys
    # Keys and values of two layers, and the hidden rows, which are as large as keys.
    expected = (4 if kv_bits is None else 4 * (8 + 2) / 32) * keys + keys
    assert expected < live.max() < expected + 0.5 * keys
    if kv_bits is None:
        # A copy of one layer's keys and values in a step would exceed this bound.
        assert (most - live)[2:].max() < 1.2 * keys


def test_a_long_prompt_leaves_no_memory_in_use() -> None:
    model = model_of(layers=1, width=8)
    prompt = (np.arange(4096) % 13).tolist()
    preset = Selective(threshold=10.0, block_size=4, rows=8)
    # The model keeps a table of the angles of all positions that were ever used.
    generate(model, None, prompt, preset, max_tokens=6)
    gc.collect()
    before = mx.get_active_memory()
    result = generate(model, None, prompt, preset, max_tokens=6)
    assert result.stats.prefill_rows == 4096
    assert result.stats.rows < 4200
    gc.collect()
    assert mx.get_active_memory() == before


def logits_after(model: Any, quantization: KVQuantization | None, length: int) -> tuple[np.ndarray[Any, Any], int]:
    """Return the logits of a step that rewrites some rows of a cache, and the bytes of the cache."""
    built = Selective().build("llada")
    canvas = Canvas.for_prompt([1, 2, 3], length - 3, 15)
    canvas.extend(length)
    request = Request(model, canvas, Decoder(built.schedule, built.acceptance, built.cache, kv=quantization))

    def logits(rows: np.ndarray[Any, Any]) -> mx.array:
        request.rows, request.eligible = RowIndex(rows, length), rows
        forward(model, [request])
        return eligible_logits(model, [request])

    logits(np.arange(length, dtype=np.int32))
    canvas.commit(np.array([3, 9]), np.array([5, 6]))
    after = logits(np.array([3, 4, 9, 30], np.int32))
    mx.eval(after)
    layers = [layer for layer in request.cache.layers if isinstance(layer, CachedLayer)]
    assert len(layers) == len(model.layers)
    return np.array(after), sum(array.nbytes for layer in layers for array in layer.arrays)


@pytest.mark.parametrize(("bits", "group", "near"), [(8, 64, 0.01), (8, 32, 0.01), (4, 32, 0.2)])
def test_quantized_keys_and_values_give_nearly_the_same_logits_in_less_memory(
    bits: int, group: int, near: float
) -> None:
    model = model_of(layers=3, width=128, heads=2)
    exact, full_size = logits_after(model, None, 40)
    logits, size = logits_after(model, KVQuantization(bits, group), 40)
    assert not np.array_equal(logits, exact)
    assert np.abs(logits - exact).max() < near * np.abs(exact).max()
    assert full_size == 2 * 3 * 40 * 128 * 4
    # A scale and a bias of four bytes for each group of float32 numbers.
    assert size == full_size * (bits + 64 / group) / 32


def test_every_cached_decoder_decodes_with_quantized_keys_and_values() -> None:
    model = model_of(layers=2)
    presets = [FastDLLM(cache="prefix", kv_bits=8), FastDLLM(kv_bits=8), D3LLM(kv_bits=8), Selective(kv_bits=8)]
    for preset in presets:
        generation = Generation(model, None, [1, 2, 3], preset, max_tokens=40)
        assert generation.decoder.kv == KVQuantization(8, 64)
        for _ in generation:
            pass
        assert generation.canvas.done


def test_quantized_rows_that_a_step_does_not_compute_are_unchanged() -> None:
    cache = KVCache(1, quantization=KVQuantization(8, 32))
    everything, some = RowIndex(np.arange(6, dtype=np.int32), 6), RowIndex(np.array([1, 4], np.int32), 6)
    base = mx.random.normal((1, 2, 6, 32), key=mx.random.key(0))
    (layer,) = cache.open(everything, np.zeros(6, np.int32))
    assert isinstance(layer, QuantizedLayer)
    layer.attend(base, mx.stack([base, -base]), 1.0)
    cache.open(some, np.zeros(2, np.int32))
    ones = mx.ones((1, 2, 2, 32))
    layer.attend(ones, mx.stack([ones, mx.zeros(ones.shape)]), 1.0)
    keys, values = layer.dequantize(layer.arrays)
    unchanged = np.array([0, 2, 3, 5])
    packed = np.array(mx.dequantize(*mx.quantize(base, 32, 8), 32, 8))
    assert np.array_equal(np.array(keys)[:, :, unchanged], packed[:, :, unchanged])
    assert np.allclose(np.array(values)[:, :, unchanged], -packed[:, :, unchanged], atol=0.05)
    assert (np.array(keys)[:, :, [1, 4]] == 1).all()
    assert (np.array(values)[:, :, [1, 4]] == 0).all()


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (D3LLM(cache="none", kv_bits=8), "kv-bits needs a KV cache"),
        (FastDLLM(cache="none", kv_bits=4), "kv-bits needs a KV cache"),
        (Selective(kv_group_size=64), "Give kv-bits too"),
        (Selective(kv_bits=8, kv_group_size=128), "heads have 64 numbers, .* Use kv-group-size 64"),
    ],
)
def test_invalid_settings_are_refused(preset: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Generation(model_of(layers=1), None, [1, 2], preset, max_tokens=4)
