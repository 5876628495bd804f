"""The KV cache of one request: keys and values of every layer, and the last hidden row, by position.

Prefix cache, dual cache, delayed cache and refresh are the same operation: compute rows at some positions, write them
into the cache, attend to everything in it. The head reads hidden rows from the cache too, so a family whose logits are
shifted finds the row before a slice in the forward that computed it.

`LayerCache.attend` is the one place where queries meet keys. Several requests share a forward by laying their rows end
to end: projections, MLP and head run once over all rows, and `Joint` attends per request.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from d3mlx.canvas import Ints
from d3mlx.kernels.dispatch import on_device
from d3mlx.models.transformer import UNCACHED, LayerCache, Positions, Shape, attention
from d3mlx.quantization import KVQuantization


class RowIndex:
    """Where the rows of one forward belong: R ascending positions, int32, of the `length` that take part.

    index, device_positions: the positions as a cache and as a model take them; a run of positions is a slice and a
    number, so that writing and rotating it need no index array.
    """

    def __init__(self, positions: Ints, length: int):
        self.positions, self.length = positions, length
        self.count = len(positions)
        first = int(positions[0])
        self.index: slice | mx.array
        self.device_positions: Positions
        if int(positions[-1]) - first + 1 == self.count:
            self.index, self.device_positions = slice(first, first + self.count), first
        else:
            self.index = self.device_positions = on_device(positions)

    @property
    def everything(self) -> bool:
        """Whether this forward computes every position that takes part."""
        return self.count == self.length

    def write(self, stored: mx.array, rows: mx.array, axis: int) -> mx.array:
        """Return `stored` with `rows` at the positions along `axis`, extended with zeros to `length` first.

        The write is in place unless something else holds the array or it had to grow.
        """
        missing = self.length - stored.shape[axis]
        if missing > 0:
            shape = list(stored.shape)
            shape[axis] = missing
            stored = mx.concatenate([stored, mx.zeros(shape, stored.dtype)], axis=axis)
        if isinstance(self.index, slice):
            stored[(slice(None),) * axis + (self.index,)] = rows
            return stored
        index = self.index.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
        return mx.put_along_axis(stored, index, rows, axis)


class CachedLayer:
    """Keys and values of one layer, each [1, K, L, head_dim]. rows: of the current forward, set by `KVCache.open`."""

    rows: RowIndex

    def __init__(self) -> None:
        self.arrays: list[mx.array] = []

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Write keys and values [1, K, R, head_dim] at the rows' positions; attend to all positions that take part.

        queries: [1, H, R, head_dim]. Returns [1, H, R, head_dim].
        """
        if self.rows.everything:
            self.arrays = [keys, values]
        else:
            self.write([keys, values])
        return attention(queries, self.arrays[0], self.arrays[1], scale)

    def write(self, fresh: list[mx.array]) -> None:
        """Write the parts of the rows, each [1, K, R, ...], into the arrays."""
        pairs = zip(self.arrays, fresh, strict=True)
        self.arrays = [self.rows.write(stored, part, axis=2) for stored, part in pairs]

    def trim(self, length: int) -> CachedLayer:
        """Return a layer of its own with the positions below `length`."""
        trimmed = self.empty()
        trimmed.arrays = [array[:, :, :length] for array in self.arrays]
        return trimmed

    def empty(self) -> CachedLayer:
        """Return a layer of the same kind with nothing in it."""
        return CachedLayer()


class QuantizedLayer(CachedLayer):
    """Keys and values of one layer, quantized: of each the packed numbers, scales and biases, [1, K, L, ...].

    A forward dequantizes one layer at a time. One that computes every position attends to what it computed.
    """

    def __init__(self, quantization: KVQuantization) -> None:
        super().__init__()
        self.quantization = quantization

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        fresh = [*self.quantize(keys), *self.quantize(values)]
        if self.rows.everything:
            self.arrays = fresh
            # Quantize within this forward: otherwise the unquantized arrays of every layer stay alive until then.
            keys, values = mx.depends([keys, values], fresh)
            return attention(queries, keys, values, scale)
        self.write(fresh)
        return attention(queries, self.dequantize(self.arrays[:3]), self.dequantize(self.arrays[3:]), scale)

    def empty(self) -> QuantizedLayer:
        return QuantizedLayer(self.quantization)

    def quantize(self, rows: mx.array) -> list[mx.array]:
        return list(mx.quantize(rows, self.quantization.group_size, self.quantization.bits))

    def dequantize(self, parts: list[mx.array]) -> mx.array:
        packed, scales, biases = parts
        return mx.dequantize(packed, scales, biases, self.quantization.group_size, self.quantization.bits)


class Joint:
    """One layer of several requests whose rows lie end to end: each attends to its own keys and values only."""

    def __init__(self, layers: Sequence[LayerCache], ends: Sequence[int]):
        """layers: one per request. ends: the row after each request's last one, ascending."""
        self.layers, self.ends = layers, ends

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """queries [1, H, R, head_dim], keys and values [1, K, R, head_dim] -> [1, H, R, head_dim]."""
        cuts = list(self.ends[:-1])
        parts = zip(self.layers, *(mx.split(x, cuts, axis=2) for x in (queries, keys, values)), strict=True)
        return mx.concatenate([layer.attend(q, k, v, scale) for layer, q, k, v in parts], axis=2)


class KVCache:
    """What one request has computed so far. It may outlive the request.

    tokens: int32 [L], the id that each position had when it was computed last; `length` is L. written: int32 [L], the
    number of the forward that computed each position last; `forwards` counts them. hidden: [1, L, D] or None. model:
    the model that computed it, None before the first request.
    """

    def __init__(self, layers: int, keep: bool = True, quantization: KVQuantization | None = None):
        """keep: False keeps no keys and values, so every forward must compute every position."""
        self.layers: list[LayerCache] = [UNCACHED] * layers
        if keep:
            self.layers = [QuantizedLayer(quantization) if quantization else CachedLayer() for _ in range(layers)]
        self.keep, self.quantization = keep, quantization
        self.tokens: Ints = np.empty(0, np.int32)
        self.written: Ints = np.empty(0, np.int32)
        self.forwards = 0
        self.hidden: mx.array | None = None
        self.model: object = None

    @property
    def length(self) -> int:
        """Number of positions, from 0 on, that the cache contains."""
        return len(self.tokens)

    def open(self, rows: RowIndex, tokens: Ints) -> list[LayerCache]:
        """Prepare for a forward of `rows` with these ids [R]; return the layers.

        Positions at or above `length` must be among the rows: nothing attends to a position that was never computed.
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
        """Keep hidden rows [1, R, D]; return those of all positions, [1, L, D]."""
        if rows.everything or self.hidden is None:
            self.hidden = hidden
        else:
            self.hidden = rows.write(self.hidden, hidden, axis=1)
        return self.hidden

    def hidden_at(self, positions: Ints) -> mx.array:
        """Return the hidden rows [N, D] of positions int32 [N], after the first forward."""
        assert self.hidden is not None
        return self.hidden[0, on_device(positions)]

    def match(self, tokens: Sequence[int] | Ints) -> int:
        """Return how many of the leading ids [P] the cache contains at the same positions."""
        count = min(self.length, len(tokens))
        different = np.flatnonzero(self.tokens[:count] != np.asarray(tokens, np.int32)[:count])
        return int(different[0]) if len(different) else count

    def trim(self, length: int) -> KVCache:
        """Return a cache of its own with the positions below `length`; this one stays as it is."""
        trimmed = KVCache(0, self.keep, self.quantization)
        trimmed.layers = [layer.trim(length) if isinstance(layer, CachedLayer) else layer for layer in self.layers]
        trimmed.tokens, trimmed.written = self.tokens[:length].copy(), self.written[:length].copy()
        trimmed.forwards, trimmed.model = self.forwards, self.model
        trimmed.hidden = None if self.hidden is None else self.hidden[:, :length]
        return trimmed


def bytes_per_position(shape: Shape, itemsize: int, keep: bool, quantization: KVQuantization | None = None) -> int:
    """Return the bytes that one position takes in a KVCache of a model of this shape.

    itemsize: bytes of a number in the model's dtype. Without `keep` there are hidden rows, and one layer's keys and
    values while it runs.
    """
    numbers = 2 * shape.kv_width
    if not keep:
        return (numbers + shape.hidden) * itemsize
    if quantization is None:
        return (numbers * shape.layers + shape.hidden) * itemsize
    # Each group of numbers has a scale and a bias.
    quantized = numbers * quantization.bits // 8 + 2 * itemsize * numbers // quantization.group_size
    return quantized * shape.layers + shape.hidden * itemsize
