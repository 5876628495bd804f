"""Functions in float32 on MLX's CPU backend, with gradients of their own: attention, SwiGLU, cross-entropy.

There, an exponential, a sigmoid or a softmax takes more than twice as long as a power, and MLX's gradient of a power
computes a logarithm. So all of these use a power once, in the forward, and their gradients use only its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import mlx.core as mx

Arrays = Sequence[mx.array]

LEAST_POWER = -125
"""Smallest exponent of two of a weight. Smaller numbers are denormal, and a power then takes three times as long."""


def with_gradients(function: Any, gradients: Any) -> Any:
    """Return `function` with its gradients by its inputs. gradients: of inputs, gradients of outputs, and outputs."""
    custom = mx.custom_function(function)
    custom.vjp(gradients)
    return custom


def powers(scores: mx.array, scale: float, axis: int) -> mx.array:
    """Return exp(scale * (scores - their maximum along `axis`)), of the same shape: a softmax before its division."""
    below = scores - scores.max(axis=axis, keepdims=True)
    return mx.power(math.exp(scale), mx.maximum(below, LEAST_POWER * math.log(2) / scale))


def attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """Return the attention [B, H, R, head_dim] of queries over keys and values [B, K, L, head_dim].

    Query head h uses key and value head h // (H / K). mask: bool [R, L], True where a query attends to a key; None for
    everywhere.
    """
    batch, _, _, width = queries.shape
    attend = with_gradients(partial(attend_grouped, scale, mask), partial(attention_gradients, scale))
    out: mx.array
    out, _, _ = attend(queries.reshape(batch, keys.shape[1], -1, width), keys, values)
    return out.reshape(queries.shape)


def attend_grouped(
    scale: float, mask: mx.array | None, queries: mx.array, keys: mx.array, values: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """Return attention of queries [B, K, G * R, head_dim], its weights before the division, and their sums.

    G: query heads per key head. Weights are [B, K, L, G * R], and sums [B, K, G * R].
    """
    # One row per key, so that a maximum or a sum over keys runs over adjacent numbers of many queries at once.
    scores = keys @ queries.swapaxes(-1, -2)
    if mask is not None:
        scores = mx.unflatten(scores, -1, (-1, len(mask)))
        scores = mx.where(mask.T[:, None], scores, -mx.inf).flatten(-2)
    weights = powers(scores, scale, axis=-2)
    sums = weights.sum(axis=-2)
    return (weights.swapaxes(-1, -2) @ values) / sums[..., None], weights, sums


def attention_gradients(scale: float, inputs: Arrays, cotangents: Arrays, outputs: Arrays) -> tuple[mx.array, ...]:
    """Return the gradients of queries, keys and values.

    With P the probabilities: dS = P * (dP - sum of dP * P over keys), and that sum is the one of dO * O over the width
    (FlashAttention, Dao et al., arXiv:2205.14135, appendix B.4).
    """
    queries, keys, values = inputs
    out, weights, sums = outputs
    # Divided by the sums here, where there are fewer numbers than probabilities.
    of_out = cotangents[0] / sums[..., None]
    of_scores = weights * (values @ of_out.swapaxes(-1, -2) - (of_out * out).sum(axis=-1)[..., None, :])
    return scale * (of_scores.swapaxes(-1, -2) @ keys), scale * (of_scores @ queries), weights @ of_out


def gated(gate: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
    """Return silu(gate) * up, and 1 / sigmoid(gate). The bound keeps the power finite."""
    inverse = 1 + mx.power(1 / math.e, mx.maximum(gate, -80.0))
    return gate / inverse * up, inverse


def gated_gradients(inputs: Arrays, cotangents: Arrays, outputs: Arrays) -> tuple[mx.array, mx.array]:
    """Return the gradients of gate and up: d silu / d gate = sigmoid * (1 + gate * (1 - sigmoid))."""
    gate, up = inputs
    sigmoid = 1 / outputs[1]
    slope = cotangents[0] * sigmoid
    return slope * up * (1 + gate * (1 - sigmoid)), slope * gate


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """Return silu(gate) * up of arrays of the same shape."""
    out: mx.array
    out, _ = with_gradients(gated, gated_gradients)(gate, up)
    return out


def likelihoods(targets: mx.array, logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Return negative log-likelihoods [N] of targets [N], and the softmax of logits [N, V] with its divisor [N]."""
    weights = powers(logits, 1.0, axis=-1)
    sums = weights.sum(axis=-1)
    target_logits = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.log(sums) + logits.max(axis=-1) - target_logits, weights, sums


def likelihood_gradients(
    targets: mx.array, inputs: Arrays, cotangents: Arrays, outputs: Arrays
) -> tuple[mx.array, ...]:
    """Return the gradient of the logits: the softmax, minus 1 at the target."""
    _, weights, sums = outputs
    of_losses = cotangents[0]
    gradients = weights * (of_losses / sums)[:, None]
    return (gradients.at[mx.arange(len(targets)), targets].subtract(of_losses),)


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the negative log-likelihoods [N] of `targets` [N] under `logits` [N, V]."""
    out: mx.array
    out, _, _ = with_gradients(partial(likelihoods, targets), partial(likelihood_gradients, targets))(logits)
    return out
