"""Gradients that the package defines, compared with those that MLX derives from the plain formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.distill.losses import cross_entropy
from d3mlx.kernels import refresh_rows
from d3mlx.kernels.refresh_rows import Rotary
from d3mlx.models.transformer import attention, swiglu

Function = Callable[..., Any]
SEEDS = st.integers(0, 10_000)


def normal(*shapes: tuple[int, ...], seed: int) -> list[mx.array]:
    rng = np.random.default_rng(seed)
    return [mx.array(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def gradients(function: Function, inputs: list[mx.array], seed: int) -> list[mx.array]:
    """Return the gradients, by all inputs, of a random sum of all results."""

    def loss(*inputs: mx.array) -> mx.array:
        results = function(*inputs)
        results = [results] if isinstance(results, mx.array) else list(results)
        targets = normal(*(result.shape for result in results), seed=seed)
        return sum(((x * target).sum() for x, target in zip(results, targets, strict=True)), start=mx.zeros(()))

    slopes: Any = mx.grad(loss, argnums=list(range(len(inputs))))(*inputs)
    return list(slopes)


def check(ours: Function, plain: Function, inputs: list[mx.array], seed: int, tolerance: float = 1e-5) -> None:
    """Compare the gradients, also of a function that is computed a second time in the backward pass."""
    expected = gradients(plain, inputs, seed)
    checkpointed: Any = mx.checkpoint(ours)
    for function in (ours, checkpointed):
        for got, right in zip(gradients(function, inputs, seed), expected, strict=True):
            assert got.shape == right.shape
            assert mx.allclose(got, right, rtol=tolerance, atol=tolerance * max(1.0, float(mx.abs(right).max())))


@settings(max_examples=40)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 6), st.integers(1, 9)),
    masked=st.booleans(),
    seed=SEEDS,
)
def test_attention(sizes: tuple[int, ...], masked: bool, seed: int) -> None:
    batch, groups, kv_heads, rows, length = sizes
    keys = (batch, kv_heads, length, 8)
    inputs = normal((batch, groups * kv_heads, rows, 8), keys, keys, seed=seed)
    allowed = np.random.default_rng(seed).random((rows, length)) < 0.5
    allowed[:, seed % length] = True
    mask = mx.array(allowed) if masked else None

    def plain(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        keys, values = mx.repeat(keys, groups, axis=1), mx.repeat(values, groups, axis=1)
        scores = 0.35 * queries @ keys.swapaxes(-1, -2)
        return mx.softmax(scores if mask is None else mx.where(mask, scores, -mx.inf), axis=-1) @ values

    check(lambda *inputs: attention(*inputs, 0.35, mask), plain, inputs, seed)


@settings(max_examples=20)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 9)), spread=st.sampled_from([1.0, 30.0]), seed=SEEDS)
def test_swiglu(shape: tuple[int, int], spread: float, seed: int) -> None:
    gate, up = normal(shape, shape, seed=seed)
    check(swiglu, lambda gate, up: nn.silu(gate) * up, [spread * gate, up], seed)


@settings(max_examples=20)
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 9)), spread=st.sampled_from([1.0, 300.0]), seed=SEEDS)
def test_cross_entropy(shape: tuple[int, int], spread: float, seed: int) -> None:
    (logits,) = normal(shape, seed=seed)
    targets = mx.array(np.random.default_rng(seed).integers(0, shape[1], shape[0]).astype(np.int32))

    def plain(logits: mx.array) -> mx.array:
        return nn.losses.cross_entropy(logits, targets)

    logits = spread * logits
    assert mx.allclose(cross_entropy(logits, targets), plain(logits), atol=1e-5 * spread)
    check(lambda logits: cross_entropy(logits, targets), plain, [logits], seed)


@pytest.mark.parametrize("turned", [4, 8])
@pytest.mark.parametrize("kernel", [False, True], ids=["reference", "kernel"])
def test_refresh_rows(turned: int, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel has no gradient of its own. In its place runs a function without one."""
    shape = (2, 2, 5, 8)
    inputs = normal((2, 4, 5, 8), shape, shape, seed=3)
    rotation = Rotary(nn.RoPE(turned)).at(np.array([0, 1, 5, 40, 41], np.int32))

    def plain(*inputs: mx.array) -> Any:
        return refresh_rows.reference(*inputs, rotation)

    if kernel:
        monkeypatch.setattr(refresh_rows.guard, "call", lambda *unused: [mx.stop_gradient(x) for x in unused[2]()])
    check(lambda *inputs: refresh_rows.refresh_rows(*inputs, rotation), plain, inputs, seed=4)


@pytest.mark.parametrize("family", ["llada", "dream", "sdar", "llada2_moe"])
def test_the_gradients_of_kept_rows_are_those_of_all_rows(family: str) -> None:
    model: Any = random_model(Sizes(family, layers=2, hidden=64, heads=4, kv_heads=2, ff=128, vocab=64))
    ids, kept = mx.arange(14).reshape(2, 7), mx.array([0, 3, 9, 13, 3])

    def loss(model: Any, every: bool) -> mx.array:
        rows = model.hidden(ids).flatten(0, 1)[kept] if every else model.hidden(ids, kept=kept)[0]
        return (model.logits(rows) * mx.arange(64)).sum()

    (right, expected), (got, found) = (nn.value_and_grad(model, loss)(model, every) for every in (True, False))
    assert mx.allclose(got, right, rtol=1e-4)
    pairs = zip(tree_flatten(found), tree_flatten(expected), strict=True)
    assert all(mx.allclose(a, b, rtol=1e-3, atol=1e-3 * float(mx.abs(b).max())) for (_, a), (_, b) in pairs)
