"""One positional store: K and V of every position and layer, and the last hidden row of every position.

Prefix cache, dual cache, delayed cache and refresh are all the same act here: write rows at positions, attend to
everything. The head reads `hidden[source(p)]`, so a family whose logits are shifted needs no special case for slices:
the row before a slice is still there from the forward that computed it.
"""

from __future__ import annotations

import mlx.core as mx

from d3mlx.canvas import Ints
from d3mlx.kernels.host import on_device
from d3mlx.models.transformer import Positions
from d3mlx.packing import KVPacking


class Rows:
    """The positions of one forward, as the host and the device need them."""

    def __init__(self, positions: Ints | mx.array, length: int):
        """length: positions that take part, computed now or before."""
        count = len(positions)
        self.length = length
        self.everything = count == length
        self.index: slice | mx.array
        self.positions: Positions
        if not isinstance(positions, mx.array) and int(positions[-1]) - int(positions[0]) + 1 == count:
            first = int(positions[0])
            self.index, self.positions = slice(first, first + count), first
        else:
            self.index = self.positions = on_device(positions)

    def write(self, stored: mx.array, fresh: mx.array, axis: int) -> mx.array:
        """`stored` with `fresh` at the positions along an axis: in place, unless something else holds the array, or
        the canvas has grown since."""
        stored = lengthened(stored, self.length, axis)
        if isinstance(self.index, slice):
            stored[(slice(None),) * axis + (self.index,)] = fresh
            return stored
        places = self.index.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
        return mx.put_along_axis(stored, places, fresh, axis)


def lengthened(stored: mx.array, length: int, axis: int) -> mx.array:
    """`stored` with room for `length` positions; the forward at hand computes those that are new."""
    missing = length - stored.shape[axis]
    if not missing:
        return stored
    shape = list(stored.shape)
    shape[axis] = missing
    return mx.concatenate([stored, mx.zeros(shape, stored.dtype)], axis=axis)


class LayerStore:
    """K and V of one layer, each [B, kv_heads, L, head_dim]."""

    def __init__(self) -> None:
        self.rows: Rows | None = None
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        assert self.rows is not None
        if self.rows.everything or self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = self.rows.write(self.keys, keys, axis=2)
            self.values = self.rows.write(self.values, values, axis=2)
        return self.keys, self.values


class PackedLayerStore:
    """K and V of one layer, quantized: of each the packed numbers, the scales and the biases, [B, kv_heads, L, ...].

    A forward unpacks them layer by layer. One that computes every position attends to what it computed.
    """

    def __init__(self, packing: KVPacking) -> None:
        self.rows: Rows | None = None
        self.packing = packing
        self.keys: list[mx.array] = []
        self.values: list[mx.array] = []

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        assert self.rows is not None
        if self.rows.everything or not self.keys:
            self.keys, self.values = self.pack(keys), self.pack(values)
            # Packed in this forward: until then, every layer's unpacked ones would be kept.
            now = mx.depends([keys, values], [*self.keys, *self.values])
            return now[0], now[1]
        self.keys = self.written(self.keys, self.pack(keys))
        self.values = self.written(self.values, self.pack(values))
        return self.unpack(self.keys), self.unpack(self.values)

    def written(self, kept: list[mx.array], fresh: list[mx.array]) -> list[mx.array]:
        assert self.rows is not None
        return [self.rows.write(stored, part, axis=2) for stored, part in zip(kept, fresh, strict=True)]

    def pack(self, rows: mx.array) -> list[mx.array]:
        return list(mx.quantize(rows, self.packing.group_size, self.packing.bits))

    def unpack(self, kept: list[mx.array]) -> mx.array:
        packed, scales, biases = kept
        return mx.dequantize(packed, scales, biases, self.packing.group_size, self.packing.bits)


class Store:
    """The cache of one request. A forward must compute every position that takes part for the first time."""

    def __init__(self, layers: int, keep: bool, packing: KVPacking | None = None):
        self.layers: list[LayerStore | PackedLayerStore] | None = None
        if keep:
            self.layers = [PackedLayerStore(packing) if packing else LayerStore() for _ in range(layers)]
        self.hidden: mx.array | None = None

    def open(self, rows: Rows) -> list[LayerStore | PackedLayerStore] | None:
        """The layers' stores, told where the coming forward's rows stand."""
        for layer in self.layers or []:
            layer.rows = rows
        return self.layers

    def write_hidden(self, rows: Rows, hidden: mx.array) -> mx.array:
        """Keep hidden rows [B, R, D]; return those of all positions [B, L, D]."""
        if rows.everything or self.hidden is None:
            self.hidden = hidden
        else:
            self.hidden = rows.write(self.hidden, hidden, axis=1)
        return self.hidden
