"""Counter-based noise: the same numbers in NumPy, in MLX on any device, and inside a Metal kernel.

The bits of draw number `call` at `index` are a hash of (seed, call, index). So they do not depend on the device or on
which rows a decoder computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

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
    """Return a 32-bit hash of `index`, a uint32 array, `seed` and `call`, with the shape of the index.

    seed, call: uint32 numbers made by `const`, or arrays that broadcast with the index. const: converts a number to
    uint32 of the library of the index.
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


def pair_indices(positions: Any, width: int, xp: Any) -> Any:
    """Return the index of each pair of a position and an id, uint32 [N, V].

    positions: int32 [N], an array of the library `xp`, which is NumPy or mlx.core. width: V.
    """
    const = mx_const if xp is mx else np.uint32
    return positions.astype(xp.uint32)[:, None] * const(width) + xp.arange(width, dtype=xp.uint32)


def gumbel(bits: Any, xp: Any) -> Any:
    """Return standard Gumbel noise, float32, made from uint32 bits of the same shape.

    xp: library of the array, NumPy or mlx.core. -log(-log u) is computed from the smaller one of u and 1 - u, to be
    precise for u near 0 and near 1.
    """
    const = mx_const if xp is mx else np.uint32
    low = (bits.astype(xp.float32) + 0.5) * 2.0**-32
    high = ((const(MASK32) - bits).astype(xp.float32) + 0.5) * 2.0**-32
    # The bound changes no number that is used, and prevents the logarithm of 0 if `high` was rounded to 1.
    return -xp.log(xp.where(low < high, -xp.log(low), -xp.log1p(-xp.minimum(high, 0.5))))
