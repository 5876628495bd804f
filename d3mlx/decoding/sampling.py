"""Drawing tokens: temperature, top-p, top-k, and noise that depends on nothing but the seed.

Noise is counter-based: draw number `call` at `index` is a hash of (seed, call, index), computed alike in NumPy and in
MLX on any device. So a seed gives the same text on every machine, whichever rows a decoder happens to compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.errors import ConfigError

MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Sampling:
    """How a committed token is drawn. Temperature 0 takes the most likely one.

    top_p: keep the smallest set of tokens whose probability reaches this share (0 < p <= 1; None for all).
    top_k: keep this many of the most likely tokens (at least 1; None for all).
    seed: fixes every draw.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"The temperature must be 0 or above, not {self.temperature}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p is a probability above 0 and at most 1, not {self.top_p}.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top-k keeps at least 1 token, not {self.top_k}.")
        if not 0 <= self.seed <= MASK32:
            raise ConfigError(f"The seed must be between 0 and {MASK32}, not {self.seed}.")

    def filtered(self, logits: mx.array) -> mx.array:
        """Logits [N, V] over the temperature (if above 0), with what top-p and then top-k drop at -inf."""
        x = logits.astype(mx.float32)
        if self.temperature > 0:
            x = x / self.temperature
        if self.top_p is not None and self.top_p < 1:
            order = mx.argsort(-x, axis=-1)
            ranked = mx.softmax(mx.take_along_axis(x, order, axis=-1), axis=-1)
            before = mx.cumsum(ranked, axis=-1) - ranked
            dropped = mx.put_along_axis(mx.zeros(x.shape), order, (before > self.top_p).astype(mx.float32), axis=-1)
            x = mx.where(dropped > 0, -mx.inf, x)
        if self.top_k is not None and self.top_k < x.shape[-1]:
            least = mx.topk(x, self.top_k, axis=-1).min(axis=-1, keepdims=True)
            x = mx.where(x < least, -mx.inf, x)
        return x


def mixed(index: Any, key: int, const: Callable[[int], Any]) -> Any:
    """Two rounds of a 32-bit hash of `index` under a 64-bit `key`; `const` makes a uint32 of either library."""
    x = index
    for word in (key & MASK32, key >> 32):
        x = (x * const(0x9E3779B1)) ^ const(word)
        x = (x ^ (x >> const(16))) * const(0x85EBCA6B)
        x = (x ^ (x >> const(13))) * const(0xC2B2AE35)
        x = x ^ (x >> const(16))
    return x


def mx_const(value: int) -> mx.array:
    return mx.array(value, dtype=mx.uint32)


class Noise:
    """The random numbers of one generation; every draw takes the next call number."""

    def __init__(self, seed: int):
        self.seed = seed
        self.call = 0

    def bits(self, index: Any, call: int, const: Callable[[int], Any]) -> Any:
        """32 random bits for each uint32 index of draw number `call`."""
        return mixed(index, self.seed | (call << 32), const)

    def uniform(self, index: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """One number in (0, 1) for each index, on the host."""
        bits = self.bits(index.astype(np.uint32), self.call, np.uint32)
        self.call += 1
        draws = (bits.astype(np.float64) + 0.5) / 2**32
        return draws.astype(np.float32)

    def gumbel(self, positions: mx.array, width: int) -> mx.array:
        """Standard Gumbel noise [N, width] for rows at `positions` [N], on the device.

        -log(-log u) is taken from the side of u that float32 resolves: large values come from u near 1.
        """
        index = positions.astype(mx.uint32)[:, None] * mx_const(width) + mx.arange(width, dtype=mx.uint32)
        bits = self.bits(index, self.call, mx_const)
        self.call += 1
        low = (bits.astype(mx.float32) + 0.5) * 2.0**-32
        high = ((mx_const(MASK32) - bits).astype(mx.float32) + 0.5) * 2.0**-32
        exponential = mx.where(low < high, -mx.log(low), -mx.log1p(-high))
        return -mx.log(exponential)
