"""The kernel that rotates fresh rows of attention at arbitrary positions, and makes them contiguous for the cache.

A step of a cached decoder computes only some positions, which need not be consecutive. Each query and key is rotated by
its own position (RoPE, Su et al., arXiv:2104.09864, the halves of a head paired). Values get the same layout as keys.
The results are contiguous, so that a write into the cache moves only the rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from d3mlx.kernels import dispatch, guard
from d3mlx.kernels.dispatch import on_device

HEADER = """
constant float TWO_PI_HIGH = 6.28318548202514648f;
constant float TWO_PI_LOW = -1.74845553146951715e-7f;

// position * frequency modulo whole turns. A plain product has an error of 0.004 at position 100000. So the frequency
// has two parts, the product's rounding error is added back, and whole turns are subtracted without rounding.
inline float angle_of(float position, float high, float low) {
  float product = position * high;
  float rest = metal::fma(position, high, -product) + position * low;
  float turns = metal::rint(product / TWO_PI_HIGH);
  return metal::fma(-turns, TWO_PI_HIGH, product) + (rest - turns * TWO_PI_LOW);
}

// One pair (i, i + width / 2) of a row. In is a parameter because small inputs are in another address space.
template <typename T, typename In>
inline void write_pair(In x, size_t at, size_t apart, device T* out, size_t to, uint half_width, float c, float s) {
  float first = static_cast<float>(x[at]);
  float second = static_cast<float>(x[at + apart]);
  out[to] = static_cast<T>(first * c - second * s);
  out[to + half_width] = static_cast<T>(first * s + second * c);
}
"""

SOURCE = """
  uint pair = thread_position_in_grid.x;
  uint row = thread_position_in_grid.y;
  uint rows = uint(queries_shape[2]);
  uint half_width = uint(queries_shape[3]) / 2;
  uint heads = uint(queries_shape[1]);
  uint kv_heads = uint(keys_shape[1]);
  uint each = heads + 2 * kv_heads;
  uint batch = thread_position_in_grid.z / each;
  uint head = thread_position_in_grid.z % each;

  float c = 1.0f;
  float s = 0.0f;
  if (head < heads + kv_heads) {
    float position = float(positions[row * positions_strides[0]]);
    float angle = angle_of(position, frequencies[2 * pair], frequencies[2 * pair + 1]);
    c = metal::cos(angle);
    s = metal::sin(angle);
  }
  if (head < heads) {
    size_t at = AT(queries);
    size_t to = ((size_t(batch) * heads + head) * rows + row) * 2 * half_width + pair;
    write_pair<T>(queries, at, half_width * queries_strides[3], turned_queries, to, half_width, c, s);
  } else if (head < heads + kv_heads) {
    head -= heads;
    size_t at = AT(keys);
    size_t to = ((size_t(batch) * kv_heads + head) * rows + row) * 2 * half_width + pair;
    write_pair<T>(keys, at, half_width * keys_strides[3], turned_keys, to, half_width, c, s);
  } else {
    head -= heads + kv_heads;
    size_t at = AT(values);
    size_t to = ((size_t(batch) * kv_heads + head) * rows + row) * 2 * half_width + pair;
    laid_values[to] = values[at];
    laid_values[to + half_width] = values[at + half_width * values_strides[3]];
  }
"""


def with_strides(source: str) -> str:
    """Return the source with AT(x) replaced by the offset of element (batch, head, row, pair) of the input x."""
    axes = list(enumerate(("batch", "head", "row", "pair")))
    names = ("queries", "keys", "values")
    return dispatch.fill(
        source, {f"AT({name})": " + ".join(f"{index} * {name}_strides[{i}]" for i, index in axes) for name in names}
    )


KERNEL = dispatch.Kernel(
    name="refresh_rows",
    input_names=("queries", "keys", "values", "positions", "frequencies"),
    output_names=("turned_queries", "turned_keys", "laid_values"),
    source=with_strides(SOURCE),
    header=HEADER,
    row_contiguous=False,
)


@cache
def frequencies(width: int, base: float, scale: float) -> mx.array:
    """Return the radians per position of each pair, float32 [width / 2, 2]: the nearest number, and the remainder."""
    exact = scale * np.float64(base) ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    high = exact.astype(np.float32)
    return on_device(np.stack([high, (exact - high).astype(np.float32)], axis=-1))


def served(rope: nn.Module, width: int) -> bool:
    """Return whether the kernel supports this RoPE: MLX's own over the whole head, halves paired, scaled or not.

    The classes of mlx-lm for other `rope_scaling` types (llama3, yarn, longrope, ...) run unchanged instead.
    """
    return type(rope) is nn.RoPE and not rope.traditional and rope.dims == width


def launch(
    queries: mx.array, keys: mx.array, values: mx.array, positions: mx.array, table: mx.array
) -> dispatch.Launch:
    """Return the launch: one thread per pair of elements of each row and head. table: a result of `frequencies`."""
    batch, heads, rows, width = queries.shape
    pairs = width // 2
    across = min(pairs, 64)
    return dispatch.Launch(
        inputs=[queries, keys, values, positions, table],
        grid=(pairs, rows, batch * (heads + 2 * keys.shape[1])),
        threadgroup=(across, max(1, min(rows, 256 // across)), 1),
        output_shapes=[queries.shape, keys.shape, values.shape],
        output_dtypes=[queries.dtype, keys.dtype, values.dtype],
        template=[("T", queries.dtype)],
    )


def reference(
    queries: mx.array, keys: mx.array, values: mx.array, positions: mx.array, rope: Any
) -> tuple[mx.array, mx.array, mx.array]:
    """Return the result of the kernel, computed with MLX operations: rows are rotated as R sequences of one token."""

    def turned(x: mx.array) -> mx.array:
        batch, heads, rows, width = x.shape
        alone = x.transpose(0, 2, 1, 3).reshape(batch * rows, heads, 1, width)
        return rope(alone, offset=mx.tile(positions, batch)).reshape(batch, rows, heads, width).transpose(0, 2, 1, 3)

    return turned(queries), turned(keys), values


def refresh_rows(
    queries: mx.array, keys: mx.array, values: mx.array, positions: mx.array, rope: nn.Module
) -> tuple[mx.array, mx.array, mx.array]:
    """Return queries and keys rotated by `rope`, and values, all contiguous, with the shapes and dtype of the inputs.

    queries: [B, H, R, width]. keys, values: [B, K, R, width]. positions: int32 [R]. Inputs may have any strides.
    """
    width = queries.shape[-1]
    if not served(rope, width):
        return reference(queries, keys, values, positions, rope)

    def made() -> dispatch.Launch:
        return launch(queries, keys, values, positions, frequencies(width, rope.base, rope.scale))

    turned_queries, turned_keys, laid = guard.call(
        KERNEL, made, lambda: reference(queries, keys, values, positions, rope)
    )
    return turned_queries, turned_keys, laid
