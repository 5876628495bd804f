"""One positional store: K and V of every position and layer, and the last hidden row of every position.

Prefix cache, dual cache, delayed cache and refresh are all the same act here: write rows at positions, attend to
everything. The head reads `hidden[source(p)]`, so a family whose logits are shifted needs no special case for slices:
the row before a slice is still there from the forward that computed it.
"""

from __future__ import annotations

import mlx.core as mx

from d3mlx.canvas import Ints
from d3mlx.models.transformer import Positions


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
            self.index = self.positions = mx.array(positions)


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
            self.keys = lengthened(self.keys, self.rows.length, axis=2)
            self.values = lengthened(self.values, self.rows.length, axis=2)
            self.keys[:, :, self.rows.index] = keys
            self.values[:, :, self.rows.index] = values
        return self.keys, self.values


class Store:
    """The cache of one request. A forward must compute every position that takes part for the first time."""

    def __init__(self, layers: int, keep: bool):
        self.layers: list[LayerStore] | None = [LayerStore() for _ in range(layers)] if keep else None
        self.hidden: mx.array | None = None

    def open(self, rows: Rows) -> list[LayerStore] | None:
        """The layers' stores, told where the coming forward's rows stand."""
        for layer in self.layers or []:
            layer.rows = rows
        return self.layers

    def write_hidden(self, rows: Rows, hidden: mx.array) -> mx.array:
        """Keep hidden rows [B, R, D]; return those of all positions [B, L, D]."""
        if rows.everything or self.hidden is None:
            self.hidden = hidden
        else:
            self.hidden = lengthened(self.hidden, rows.length, axis=1)
            self.hidden[:, rows.index] = hidden
        return self.hidden
