"""Statistics of rows of logits: what acceptance rules need to know, and the sampled token.

Everything is computed in float32 whatever the dtype of the logits, because ties and near ties are common in half
precision.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx


class TokenStats(NamedTuple):
    """Per row, each [N]: the probabilities are those of the softmax at temperature 1, entropy is in nats.

    `token` has the highest logit (lowest id wins a tie), `p` and `p2` are the highest and second highest probability,
    `sampled` is the drawn token and `p_sampled` its probability. Excluded ids are never `token` or `sampled` but stay
    in the softmax. A row of only -inf gives id 0, p 0 and entropy +inf, one with NaN or +inf gives entropy NaN.
    """

    token: mx.array
    p: mx.array
    p2: mx.array
    entropy: mx.array
    sampled: mx.array
    p_sampled: mx.array


def token_stats(logits: mx.array, excluded: int, scores: mx.array | None = None) -> TokenStats:
    """Statistics of logits [N, V]; `excluded` is an id that may not be chosen (the mask token), -1 for none.

    `scores` [N, V] are noisy logits whose argmax is the sampled token (Gumbel-max); without them the sampled token is
    the argmax of the logits.
    """
    x = logits.astype(mx.float32)
    top = x.max(axis=-1, keepdims=True)
    shifted = x - mx.where(mx.isinf(top), 0.0, top)
    weights = mx.exp(shifted)
    total = weights.sum(axis=-1)
    weighted = mx.where(weights > 0, weights * shifted, 0.0).sum(axis=-1)
    entropy = mx.where(total == 0, mx.inf, mx.log(total) - weighted / total)
    scale = mx.where(total > 0, 1 / total, 0.0)

    ids = mx.arange(x.shape[-1])
    choices = mx.where(ids == excluded, -1.0, weights)
    token = choices.argmax(axis=-1)
    second = mx.where(ids == token[:, None], -1.0, choices).max(axis=-1)
    if scores is None:
        sampled = token
    else:
        allowed = mx.where(ids == excluded, -mx.inf, scores)
        sampled = allowed.argmax(axis=-1)

    def probability(chosen: mx.array) -> mx.array:
        return mx.take_along_axis(weights, chosen[:, None], axis=-1)[:, 0] * scale

    return TokenStats(
        token.astype(mx.int32),
        probability(token),
        mx.maximum(second, 0.0) * scale,
        entropy,
        sampled.astype(mx.int32),
        probability(sampled),
    )
