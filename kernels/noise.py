"""Counter-based noise: the same numbers in NumPy, in MLX on any device, and inside a Metal kernel.

The bits of draw number `call` at `index` are a hash of (seed, call, index), so they do not depend on which rows a
decoder happens to compute, or where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

MASK32 = 0xFFFFFFFF

METAL = """
inline uint mixed(uint x, uint seed, uint call) {
  for (uint round = 0; round < 2; round++) {
    x = (x * 0x9E3779B1u) ^ (round == 0 ? seed : call);
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x = x ^ (x >> 16);
  }
  return x;
}

inline float gumbel(uint bits) {
  float low = (float(bits) + 0.5f) * 2.3283064365386963e-10f;
  float high = (float(0xFFFFFFFFu - bits) + 0.5f) * 2.3283064365386963e-10f;
  return -metal::log(low < high ? -metal::log(low) : -log1p(-high));
}
"""


def mixed(index: Any, seed: Any, call: Any, const: Callable[[int], Any]) -> Any:
    """Return two rounds of a 32-bit hash of `index`, a uint32 array.

    seed, call: uint32, numbers of the same library made by `const`, or arrays that broadcast with the index. const:
    makes a uint32 number of that library.
    """
    x = index
    for word in (seed, call):
        x = (x * const(0x9E3779B1)) ^ word
        x = (x ^ (x >> const(16))) * const(0x85EBCA6B)
        x = (x ^ (x >> const(13))) * const(0xC2B2AE35)
        x = x ^ (x >> const(16))
    return x


def mx_const(value: int) -> mx.array:
    return mx.array(value, dtype=mx.uint32)


def pair_indices(positions: mx.array, width: int) -> mx.array:
    """Return the index of every pair of a position and an id, uint32 [N, V]. positions: int32 [N]. width: V."""
    return positions.astype(mx.uint32)[:, None] * mx_const(width) + mx.arange(width, dtype=mx.uint32)


def gumbel(bits: mx.array) -> mx.array:
    """Standard Gumbel noise of uint32 bits.

    -log(-log u) is taken from the side of u that float32 resolves: large values come from u near 1.
    """
    low = (bits.astype(mx.float32) + 0.5) * 2.0**-32
    high = ((mx_const(MASK32) - bits).astype(mx.float32) + 0.5) * 2.0**-32
    return -mx.log(mx.where(low < high, -mx.log(low), -mx.log1p(-high)))
