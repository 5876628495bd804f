"""Training on MLX's CPU backend, where exp dominates: the same functions with a fast exp and hand-written gradients.

The library's exp, sigmoid and softmax take 12-16 ns an element on one thread. A polynomial that mx.compile fuses
takes 2 (relative error 1e-5), so `fast_cpu()` swaps it into the transformer while a model trains. Compiling for the CPU
needs a C++ compiler; without one the plain functions stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from d3mlx.distill.objective import CrossEntropy, cross_entropy
from d3mlx.models import transformer
from d3mlx.models.transformer import attention as plain_attention
from d3mlx.models.transformer import swiglu as plain_swiglu


def exp(x: mx.array) -> mx.array:
    """e^x for |x| <= 60, clipped beyond: a Taylor polynomial of x / 64, squared six times."""
    x = mx.clip(x, -60.0, 60.0) * (1 / 64)
    power = 1 + x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x * (1 / 5040)))))))
    for _ in range(6):
        power = power * power
    return power


custom_function: Any = mx.custom_function


def compiled(function):  # type: ignore[no-untyped-def]
    return mx.compile(function, shapeless=True)


@compiled
def exp_shifted(x: mx.array, shift: mx.array) -> mx.array:
    return exp(x - shift)


@compiled
def softmax_gradient(probabilities: mx.array, cotangent: mx.array, inner: mx.array) -> mx.array:
    return probabilities * (cotangent - inner)


def softmax(x: mx.array) -> mx.array:
    powers = exp_shifted(x, x.max(axis=-1, keepdims=True))
    return powers * (1 / powers.sum(axis=-1, keepdims=True))


@custom_function
def attend(queries: mx.array, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
    """Attention of scaled queries, and its probabilities for the backward pass."""
    probabilities = softmax(queries @ keys.swapaxes(-1, -2))
    return probabilities @ values, probabilities


@attend.vjp
def attend_vjp(primals, cotangents, outputs):  # type: ignore[no-untyped-def]
    queries, keys, values = primals
    (out, probabilities), cotangent = outputs, cotangents[0]
    inner = (cotangent * out).sum(axis=-1, keepdims=True)
    scores = softmax_gradient(probabilities, cotangent @ values.swapaxes(-1, -2), inner)
    return scores @ keys, scores.swapaxes(-1, -2) @ queries, probabilities.swapaxes(-1, -2) @ cotangent


def attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    if queries.dtype != mx.float32:
        # In half precision the six squarings of `exp` would multiply the rounding error by 64.
        return plain_attention(queries, keys, values, scale)
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = (mx.repeat(x, groups, axis=1) for x in (keys, values))
    return attend(queries * scale, keys, values)[0]


@compiled
def sigmoid(x: mx.array) -> mx.array:
    return 1 / (1 + exp(-x))


@compiled
def gated_gradient(
    gate: mx.array, up: mx.array, open_share: mx.array, cotangent: mx.array
) -> tuple[mx.array, mx.array]:
    opened = cotangent * open_share
    return opened * up * (1 + gate * (1 - open_share)), opened * gate


@custom_function
def gate_up(gate: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
    open_share = sigmoid(gate)
    return gate * open_share * up, open_share


@gate_up.vjp
def gate_up_vjp(primals, cotangents, outputs):  # type: ignore[no-untyped-def]
    return gated_gradient(*primals, outputs[1], cotangents[0])


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    if gate.dtype != mx.float32:
        return plain_swiglu(gate, up)
    return gate_up(gate, up)[0]


@custom_function
def entropy_and_softmax(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    highest = logits.max(axis=-1, keepdims=True)
    powers = exp_shifted(logits, highest)
    total = powers.sum(axis=-1, keepdims=True)
    chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)
    return (mx.log(total) + highest - chosen)[:, 0], powers * (1 / total)


@entropy_and_softmax.vjp
def entropy_vjp(primals, cotangents, outputs):  # type: ignore[no-untyped-def]
    logits, targets = primals
    hit = mx.arange(logits.shape[-1])[None] == targets[:, None]
    return (outputs[1] - hit) * cotangents[0][:, None], mx.zeros_like(targets)


def fast_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    return entropy_and_softmax(logits, targets)[0]


@contextmanager
def fast_cpu() -> Iterator[CrossEntropy]:
    """Swap the fast functions in while the block runs; gives the cross-entropy to train with."""
    if mx.default_device() != mx.Device(mx.cpu) or shutil.which("g++") is None:
        yield cross_entropy
        return
    plain = transformer.attention, transformer.swiglu
    transformer.attention, transformer.swiglu = attention, swiglu
    try:
        yield fast_cross_entropy
    finally:
        transformer.attention, transformer.swiglu = plain
