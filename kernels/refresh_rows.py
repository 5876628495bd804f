"""The kernel that rotates fresh rows of attention at arbitrary positions, and lays them out for the cache.

A step of a cached decoder computes only some positions, which need not be consecutive. Each query and key is rotated by
its own position (RoPE, Su et al., arXiv:2104.09864, the halves of a head paired). Keys and values become one contiguous
array, so that one write moves both into the cache, and moves only the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from d3mlx.kernels import dispatch, guard
from d3mlx.kernels.dispatch import on_device

SOURCE = """
  uint pair = thread_position_in_grid.x;
  uint row = thread_position_in_grid.y;
  uint pairs = threads_per_grid.x;
  uint rows = uint(queries_shape[2]);
  uint heads = uint(queries_shape[1]);
  uint kv_heads = uint(keys_shape[1]);
  uint each = heads + 2 * kv_heads;
  uint batches = uint(queries_shape[0]);
  uint batch = thread_position_in_grid.z / each;
  uint head = thread_position_in_grid.z % each;

  // The rotated part of a head pairs its halves; the rest of a head stays as it is.
  uint turned = uint(table_shape[2]);
  uint first = pair < turned ? pair : 2 * pair;
  uint second = pair < turned ? pair + turned : 2 * pair + 1;
  float c = 1.0f;
  float s = 0.0f;
  if (pair < turned && head < heads + kv_heads) {
    size_t angle = size_t(positions[row]) * 2 * turned + pair;
    c = table[angle];
    s = table[angle + turned];
  }
  if (head < heads) {
    size_t from = OFFSET(queries);
    float x = static_cast<float>(queries[from + first * queries_strides[3]]);
    float y = static_cast<float>(queries[from + second * queries_strides[3]]);
    size_t to = ((size_t(batch) * heads + head) * rows + row) * 2 * pairs;
    turned_queries[to + first] = static_cast<T>(x * c - y * s);
    turned_queries[to + second] = static_cast<T>(x * s + y * c);
  } else if (head < heads + kv_heads) {
    head -= heads;
    size_t from = OFFSET(keys);
    float x = static_cast<float>(keys[from + first * keys_strides[3]]);
    float y = static_cast<float>(keys[from + second * keys_strides[3]]);
    size_t to = ((size_t(batch) * kv_heads + head) * rows + row) * 2 * pairs;
    laid_rows[to + first] = static_cast<T>(x * c - y * s);
    laid_rows[to + second] = static_cast<T>(x * s + y * c);
  } else {
    head -= heads + kv_heads;
    size_t from = OFFSET(values);
    size_t to = (((size_t(batches) + batch) * kv_heads + head) * rows + row) * 2 * pairs;
    laid_rows[to + first] = values[from + first * values_strides[3]];
    laid_rows[to + second] = values[from + second * values_strides[3]];
  }
"""


def with_strides(source: str) -> str:
    """Return the source with OFFSET(x) replaced by the offset of (batch, head, row) in the input x."""
    axes = list(enumerate(("batch", "head", "row")))
    names = ("queries", "keys", "values")
    return dispatch.fill(
        source, {f"OFFSET({name})": " + ".join(f"{index} * {name}_strides[{i}]" for i, index in axes) for name in names}
    )


KERNEL = dispatch.Kernel(
    name="refresh_rows",
    input_names=("queries", "keys", "values", "positions", "table"),
    output_names=("turned_queries", "laid_rows"),
    source=with_strides(SOURCE),
    row_contiguous=False,
)

CHUNK = 1024
"""A table of angles is made for a multiple of this many positions."""


def angles(rope: Any, length: int) -> mx.array:
    """Return cosine and sine of each pair at the positions below `length`, float32 [length, 2, rotated pairs].

    rope: an instance of MLX's RoPE, whose angles are computed in float64, or of a class of mlx-lm for other kinds of
    `rope_scaling`, which rotates (1, 0) to give both.
    """
    half = rope.dims // 2
    if type(rope) is nn.RoPE:
        frequencies = rope.scale * np.float64(rope.base) ** (-np.arange(half) / half)
        turns = np.arange(length)[:, None] * frequencies
        return on_device(np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32))
    basis = np.concatenate([np.ones((length, half), np.float32), np.zeros((length, half), np.float32)], axis=1)
    turned: mx.array = rope(on_device(basis)[None, None])
    return turned.reshape(length, 2, half)


class Rotary:
    """The angles of one kind of rotary embedding, in a table that grows with the positions that are asked for.

    rope: an instance of MLX's RoPE, or of a class of mlx-lm for another kind of `rope_scaling`.
    """

    def __init__(self, rope: Any):
        self.rope = rope
        self.table = mx.zeros((0, 2, rope.dims // 2))

    def at(self, positions: npt.NDArray[np.int32]) -> Rotation:
        """Return the rotation of rows at `positions`, int32 [R]."""
        needed = int(positions.max()) + 1
        if needed > len(self.table):
            self.table = angles(self.rope, -(-needed // CHUNK) * CHUNK)
        return Rotation(positions, self.table)


class Rotation:
    """The rotation of the rows of one forward, which all layers share.

    positions: int32 [R] on the host. table: float32 [P, 2, rotated pairs], cosine and sine at every position.
    """

    def __init__(self, positions: npt.NDArray[np.int32], table: mx.array):
        self.positions, self.table = positions, table

    @cached_property
    def device_positions(self) -> mx.array:
        return on_device(self.positions)

    @cached_property
    def cos_sin(self) -> tuple[mx.array, mx.array]:
        """Return cosine and sine of the rotated numbers of each row, each float32 [R, 2 * rotated pairs].

        The sines of the first half are negative.
        """
        first, count = int(self.positions[0]), len(self.positions)
        if (np.diff(self.positions) == 1).all():
            rows = self.table[first : first + count]
        else:
            rows = self.table[self.device_positions]
        cos, sin = rows[:, 0], rows[:, 1]
        return mx.concatenate([cos, cos], axis=-1), mx.concatenate([-sin, sin], axis=-1)


def launch(queries: mx.array, keys: mx.array, values: mx.array, rotation: Rotation) -> dispatch.Launch:
    """Return the launch: one thread per pair of elements of each row and head."""
    batch, heads, rows, width = queries.shape
    pairs = width // 2
    across = min(pairs, 64)
    return dispatch.Launch(
        inputs=[queries, keys, values, rotation.device_positions, rotation.table],
        grid=(pairs, rows, batch * (heads + 2 * keys.shape[1])),
        threadgroup=(across, max(1, min(rows, 256 // across)), 1),
        output_shapes=[queries.shape, (2, *keys.shape)],
        output_dtypes=[queries.dtype, keys.dtype],
        template=[("T", queries.dtype)],
    )


def turned(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """Return rows x [..., R, width] after their rotation, in the same dtype.

    cos, sin: as in `Rotation.cos_sin`. With -sin, the rotation is the inverse. The rest of a head stays as it is.
    """
    half = cos.shape[-1] // 2
    wide = x.astype(mx.float32)
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    rotated = wide[..., : 2 * half] * cos + mx.concatenate([second, first], axis=-1) * sin
    return (mx.concatenate([rotated, rest], axis=-1) if rest.size else rotated).astype(x.dtype)


def reference(queries: mx.array, keys: mx.array, values: mx.array, rotation: Rotation) -> tuple[mx.array, mx.array]:
    """Return the result of the kernel, computed with MLX operations."""
    heads = queries.shape[1]
    rotated = turned(mx.concatenate([queries, keys], axis=1), *rotation.cos_sin)
    return rotated[:, :heads], mx.stack([rotated[:, heads:], values])


def gradients(rotation: Rotation, cotangents: Sequence[mx.array]) -> tuple[mx.array, mx.array, mx.array]:
    """Return the gradients of queries, keys and values. cotangents: the gradients of the two results.

    The gradient of a rotation is the inverse rotation.
    """
    of_queries, (of_keys, of_values) = cotangents
    cos, sin = rotation.cos_sin
    return turned(of_queries, cos, -sin), turned(of_keys, cos, -sin), of_values


def refresh_rows(queries: mx.array, keys: mx.array, values: mx.array, rotation: Rotation) -> tuple[mx.array, mx.array]:
    """Return rotated queries, and the rows for the cache: rotated keys and values, [2, B, K, R, width].

    queries: [B, H, R, width]. keys, values: [B, K, R, width]. Inputs may have any strides; the results are contiguous
    and have their dtype. A kernel has no gradient in MLX, so this function defines its own.
    """

    def refreshed(queries: mx.array, keys: mx.array, values: mx.array) -> Any:
        return guard.call(
            KERNEL,
            lambda: launch(queries, keys, values, rotation),
            lambda: reference(queries, keys, values, rotation),
        )

    function: Any = mx.custom_function(refreshed)
    function.vjp(lambda inputs, cotangents, outputs: gradients(rotation, cotangents))
    turned_queries: mx.array
    rows: mx.array
    turned_queries, rows = function(queries, keys, values)
    return turned_queries, rows
