"""Attention and SwiGLU on a CPU, which avoid slow functions, compared with MLX's own operations."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import activations

from d3mlx.models.transformer import attention, swiglu


def stock(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


def arrays(batch: int, groups: int, kv_heads: int, rows: int, length: int, spread: float, seed: int = 0) -> Any:
    """Return queries, keys, values, and a mask in which every row attends to at least one key."""
    rng = np.random.default_rng(seed)

    def normal(heads: int, count: int) -> mx.array:
        return mx.array(rng.normal(size=(batch, heads, count, 8)).astype(np.float32))

    mask = rng.random((rows, length)) < 0.5
    mask[np.arange(rows), rng.integers(0, length, rows)] = True
    queries = spread * normal(groups * kv_heads, rows)
    return queries, normal(kv_heads, length), normal(kv_heads, length), mx.array(mask)


@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(1, 5), st.integers(1, 12)),
    spread=st.sampled_from([0.1, 1.0, 30.0, 3000.0]),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_attention_equals_that_of_mlx(sizes: tuple[int, ...], spread: float, masked: bool, seed: int) -> None:
    """Scores may be so far apart that some weights are 0."""
    batch, groups, kv_heads, rows, length = sizes
    queries, keys, values, mask = arrays(batch, groups, kv_heads, rows, length, spread, seed)
    out = attention(queries, keys, values, 8**-0.5, mask if masked else None)
    assert out.shape == queries.shape
    assert mx.allclose(out, stock(queries, keys, values, 8**-0.5, mask if masked else None), atol=2e-5 + 2e-7 * spread)


def test_keys_may_be_a_part_of_a_longer_array() -> None:
    queries, keys, values, _ = arrays(1, 2, 2, 4, 20, 1.0)
    out = attention(queries, keys[:, :, :13], values[:, :, :13], 0.25)
    expected = stock(queries, mx.contiguous(keys[:, :, :13]), mx.contiguous(values[:, :, :13]), 0.25, None)
    assert mx.allclose(out, expected, atol=1e-5)


def test_gradients_of_attention_equal_those_of_mlx() -> None:
    queries, keys, values, mask = arrays(2, 2, 2, 5, 7, 1.0)
    target = mx.random.normal(queries.shape, key=mx.random.key(1))

    def gradients(function: Any) -> Any:
        def loss(*inputs: mx.array) -> mx.array:
            return (function(*inputs, 0.35, mask) * target).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(queries, keys, values)

    for ours, theirs in zip(gradients(attention), gradients(stock), strict=True):
        assert mx.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_swiglu_equals_its_definition(dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "swiglu", None)  # compiled, which needs a C++ compiler on a CPU
    gate = mx.array([-1e4, -200.0, -80.0, -5.0, -1e-3, 0.0, 1e-3, 5.0, 80.0, 200.0, 1e4]).astype(dtype)
    out, expected = swiglu(gate, mx.full(gate.shape, 1.5, dtype)), nn.silu(gate.astype(mx.float32)) * 1.5
    assert out.dtype == dtype
    tolerance = 1e-6 if dtype == mx.float32 else 1e-2
    assert mx.allclose(out.astype(mx.float32), expected, rtol=tolerance, atol=1e-6)


def test_swiglu_of_an_extreme_number_is_finite() -> None:
    assert abs(float(swiglu(mx.array(-1e30), mx.array(2.0)))) < 1e-3
    assert float(swiglu(mx.array(1e30), mx.array(2.0))) == float(mx.array(2e30))


def test_the_slope_of_swiglu_is_that_of_its_definition() -> None:
    gate = mx.array([-1e4, -200.0, -30.0, -2.0, 0.0, 2.0, 30.0, 1e4])
    slope = mx.grad(lambda x: swiglu(x, mx.ones(x.shape)).sum())(gate)
    sigmoid = 1 / (1 + np.exp(np.minimum(-np.array(gate, np.float64), 700)))
    assert np.allclose(slope, sigmoid * (1 + np.array(gate) * (1 - sigmoid)), atol=1e-5)
