"""The KV cache of one request: for each position, keys and values of every layer and the final hidden row.

Prefix cache, dual cache, delayed cache and refresh are the same operation: compute rows at some positions, write them
into the cache, attend to everything in it. The head also reads hidden rows from the cache. So a family with shifted
logits can use the row before a slice, which an earlier forward computed.

All attention runs in `LayerCache.attend`. To share a forward, the rows of several requests are concatenated:
projections, MLP and head run once over all rows, and `Joint` attends per request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import mlx.core as mx
import numpy as np

from d3mlx.canvas import Ints
from d3mlx.kernels.dispatch import on_device
from d3mlx.models.transformer import UNCACHED, LayerCache, Shape, attention
from d3mlx.quantization import KVQuantization

GROWTH = 256
"""An array of a cache that must grow grows to a multiple of this many positions, so that it is rarely copied."""


class RowIndex:
    """The positions of the rows of one forward: int32 [R], ascending, all below `length`, the end of the attended part.

    index: the positions as an index into a cache, a slice for consecutive positions. block_size: size of the blocks of
    a block-causal model, None for a model whose rows attend to all positions.
    """

    def __init__(self, positions: Ints, length: int, block_size: int | None = None):
        self.positions, self.length, self.block_size = positions, length, block_size
        self.count = len(positions)
        first = int(positions[0])
        consecutive = int(positions[-1]) - first + 1 == self.count
        self.index: slice | mx.array = slice(first, first + self.count) if consecutive else on_device(positions)

    @property
    def everything(self) -> bool:
        """Return whether this forward computes every position that it attends to."""
        return self.count == self.length

    @cached_property
    def mask(self) -> mx.array | None:
        """Return bool [R, length], True where a row attends to a position. None if it attends to all of them.

        A row of a block-causal model attends to its own block and to the blocks before it.
        """
        if self.block_size is None or self.positions[0] // self.block_size == (self.length - 1) // self.block_size:
            return None
        blocks = np.arange(self.length) // self.block_size
        return on_device(blocks[None, :] <= (self.positions // self.block_size)[:, None])

    def write(self, stored: mx.array, rows: mx.array, axis: int) -> mx.array:
        """Return `stored` with `rows` at the positions along `axis`, extended with zeros to `length` or more first.

        MLX writes in place unless the array has another reference or had to grow.
        """
        missing = self.length - stored.shape[axis]
        if missing > 0:
            shape = list(stored.shape)
            shape[axis] = missing + -self.length % GROWTH
            stored = mx.concatenate([stored, mx.zeros(shape, stored.dtype)], axis=axis)
        if isinstance(self.index, slice):
            stored[(slice(None),) * axis + (self.index,)] = rows
            return stored
        index = self.index.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
        return mx.put_along_axis(stored, index, rows, axis)


class CachedLayer:
    """Keys and values of one layer in one array, [2, 1, K, L or more, head_dim], so that one write moves both.

    arrays: that array; several for quantized numbers. rows: those of the current forward (`KVCache.open`).
    """

    rows: RowIndex

    def __init__(self) -> None:
        self.arrays: list[mx.array] = []

    def attend(self, queries: mx.array, rows: mx.array, scale: float) -> mx.array:
        """Write keys and values at the rows' positions and attend to the positions below `length`.

        queries: [1, H, R, head_dim]. rows: [2, 1, K, R, head_dim]. Returns [1, H, R, head_dim].
        """
        if self.rows.everything:
            self.arrays = [rows]
        else:
            self.write([rows])
        (stored,) = self.arrays
        # An index after the slice would copy.
        keys, values = stored[0, :, :, : self.rows.length], stored[1, :, :, : self.rows.length]
        return attention(queries, keys, values, scale, self.rows.mask)

    def write(self, fresh: list[mx.array]) -> None:
        """Write the fresh rows of each array, [2, 1, K, R, ...], into the arrays."""
        pairs = zip(self.arrays, fresh, strict=True)
        self.arrays = [self.rows.write(stored, part, axis=3) for stored, part in pairs]

    def trim(self, length: int) -> CachedLayer:
        """Return a separate layer with the positions below `length`."""
        trimmed = self.empty()
        trimmed.arrays = [array[..., :length, :] for array in self.arrays]
        return trimmed

    def empty(self) -> CachedLayer:
        """Return an empty layer of the same kind."""
        return CachedLayer()


class QuantizedLayer(CachedLayer):
    """Quantized keys and values of one layer: packed numbers, scales and biases, each [2, 1, K, L, ...].

    A forward dequantizes one layer at a time. A forward that computes every position attends to the exact numbers.
    """

    def __init__(self, quantization: KVQuantization) -> None:
        super().__init__()
        self.quantization = quantization

    def attend(self, queries: mx.array, rows: mx.array, scale: float) -> mx.array:
        fresh = self.quantize(rows)
        if self.rows.everything:
            self.arrays = fresh
            # Quantize within this forward: otherwise the unquantized arrays of all layers stay in memory until later.
            (rows,) = mx.depends([rows], fresh)
        else:
            self.write(fresh)
            rows = self.dequantize([array[..., : self.rows.length, :] for array in self.arrays])
        keys, values = rows
        return attention(queries, keys, values, scale, self.rows.mask)

    def empty(self) -> QuantizedLayer:
        return QuantizedLayer(self.quantization)

    def quantize(self, rows: mx.array) -> list[mx.array]:
        return list(mx.quantize(rows, self.quantization.group_size, self.quantization.bits))

    def dequantize(self, parts: list[mx.array]) -> mx.array:
        packed, scales, biases = parts
        return mx.dequantize(packed, scales, biases, self.quantization.group_size, self.quantization.bits)


class Joint:
    """One layer of several requests with concatenated rows. Each request attends only to its own keys and values."""

    def __init__(self, layers: Sequence[LayerCache], ends: Sequence[int]):
        """Join `layers`, one per request. ends: index after the last row of each request, ascending."""
        self.layers, self.ends = layers, ends

    def attend(self, queries: mx.array, rows: mx.array, scale: float) -> mx.array:
        """Return [1, H, R, head_dim] for queries [1, H, R, head_dim] and rows [2, 1, K, R, head_dim]."""
        cuts = list(self.ends[:-1])
        parts = zip(self.layers, mx.split(queries, cuts, axis=2), mx.split(rows, cuts, axis=3), strict=True)
        return mx.concatenate([layer.attend(part, fresh, scale) for layer, part, fresh in parts], axis=2)


class KVCache:
    """Rows that one request has computed so far. The cache may be used after the request ends.

    tokens: int32 [L], the id that each position had when it was last computed; `length` is L. written: int32 [L], the
    number of the forward that last computed each position; `forwards` counts them. hidden: [1, L or more, D] or None,
    with D the hidden size. model, block_size: the model that computed the rows, and the size of its blocks if it is
    block-causal; None before the first request.
    """

    def __init__(self, layers: int, keep: bool = True, quantization: KVQuantization | None = None):
        """Make an empty cache. keep: False stores no keys and values, so every forward must compute all positions."""
        self.layers: list[LayerCache] = [UNCACHED] * layers
        if keep:
            self.layers = [QuantizedLayer(quantization) if quantization else CachedLayer() for _ in range(layers)]
        self.keep, self.quantization = keep, quantization
        self.tokens: Ints = np.empty(0, np.int32)
        self.written: Ints = np.empty(0, np.int32)
        self.forwards = 0
        self.hidden: mx.array | None = None
        self.model: object = None
        self.block_size: int | None = None

    @property
    def length(self) -> int:
        """Return the number of positions, counted from 0, that the cache contains."""
        return len(self.tokens)

    def open(self, rows: RowIndex, tokens: Ints) -> list[LayerCache]:
        """Prepare for a forward of `rows` with ids `tokens`, int32 [R], and return the layers.

        The rows must include every position from `length` on, because a position must be computed before it is
        attended to.
        """
        grown = max(rows.length - self.length, 0)
        self.tokens = np.concatenate([self.tokens, np.full(grown, -1, np.int32)])
        self.written = np.concatenate([self.written, np.full(grown, -1, np.int32)])
        self.tokens[rows.positions], self.written[rows.positions] = tokens, self.forwards
        self.forwards += 1
        for layer in self.layers:
            if isinstance(layer, CachedLayer):
                layer.rows = rows
        return self.layers

    def write_hidden(self, rows: RowIndex, hidden: mx.array) -> mx.array:
        """Store hidden rows [1, R, D] and return those of all positions, [1, L or more, D]."""
        if rows.everything or self.hidden is None:
            self.hidden = hidden
        else:
            self.hidden = rows.write(self.hidden, hidden, axis=1)
        return self.hidden

    def hidden_at(self, positions: Ints) -> mx.array:
        """Return the hidden rows [N, D] of positions int32 [N], after the first forward."""
        assert self.hidden is not None
        return self.hidden.squeeze(0)[on_device(positions)]

    def match(self, tokens: Sequence[int] | Ints) -> int:
        """Return how many leading ids of `tokens`, int32 [P], the cache contains at the same positions."""
        count = min(self.length, len(tokens))
        different = np.flatnonzero(self.tokens[:count] != np.asarray(tokens, np.int32)[:count])
        return int(different[0]) if len(different) else count

    def match_blocks(self, tokens: Sequence[int] | Ints, size: int) -> int:
        """Return how many leading ids of `tokens`, int32 [P], are in complete cached blocks of `size` positions.

        Their keys and values are final in a block-causal model, because they depend on no later block. Only a block
        that one forward computed completely counts, because all of its rows saw the same tokens.
        """
        blocks = self.written[: self.match(tokens) // size * size].reshape(-1, size)
        partial = np.flatnonzero((blocks != blocks[:, :1]).any(axis=1))
        return size * int(partial[0] if len(partial) else len(blocks))

    def trim(self, length: int) -> KVCache:
        """Return a separate cache with the positions below `length`; this one does not change."""
        trimmed = KVCache(0, self.keep, self.quantization)
        trimmed.layers = [layer.trim(length) if isinstance(layer, CachedLayer) else layer for layer in self.layers]
        trimmed.tokens, trimmed.written = self.tokens[:length].copy(), self.written[:length].copy()
        trimmed.forwards, trimmed.model, trimmed.block_size = self.forwards, self.model, self.block_size
        trimmed.hidden = None if self.hidden is None else self.hidden[:, :length]
        return trimmed


def bytes_per_position(shape: Shape, itemsize: int, keep: bool, quantization: KVQuantization | None = None) -> int:
    """Return the bytes that one position takes in a KVCache of a model of this shape.

    itemsize: bytes of a number in the model's dtype. keep: as for KVCache; without it, count the hidden row and the
    keys and values of one layer, which exist while that layer runs.
    """
    numbers = 2 * shape.kv_width
    if not keep:
        return (numbers + shape.hidden) * itemsize
    if quantization is None:
        return (numbers * shape.layers + shape.hidden) * itemsize
    # Each group of numbers has a scale and a bias.
    quantized = numbers * quantization.bits // 8 + 2 * itemsize * numbers // quantization.group_size
    return quantized * shape.layers + shape.hidden * itemsize
