"""A model without weights: its logits are a table, and it records which positions it computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np

MASK, END, VOCAB = 15, 14, 16


class TableModel:
    """A model that predicts position p with row p of `table`, float32 [L, VOCAB].

    A hidden row is its position, so a prediction shows which row it was read from. In a model with `shift`, a row
    predicts the next position. calls: the positions of each forward.
    """

    def __init__(self, table: np.ndarray[Any, Any], family: str = "llada"):
        self.family, self.shift = family, int(family == "dream")
        self.table = mx.array(table.astype(np.float32))
        self.args = SimpleNamespace(mask_token_id=MASK, eos_token_id=END, logit_width=VOCAB, context=4096)
        self.layers: list[Any] = []
        self.calls: list[list[int]] = []

    def hidden(self, ids: mx.array, positions: Any = 0, cache: Any = None) -> mx.array:
        batch, rows = ids.shape
        computed = np.arange(positions, positions + rows) if isinstance(positions, int) else positions
        self.calls.append(computed.tolist())
        return mx.broadcast_to(mx.array(computed.astype(np.float32))[None, :, None], (batch, rows, 1))

    def logits(self, hidden: mx.array) -> mx.array:
        source = hidden[..., 0].astype(mx.int32) + self.shift
        return self.table[mx.minimum(source, len(self.table) - 1)]


def random_table(seed: int, length: int, sharpness: float = 4.0) -> np.ndarray[Any, Any]:
    """Return logits [L, VOCAB] of many kinds: confident or not, with ties, with likely end tokens and mask tokens."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(length, VOCAB)) * rng.uniform(0, sharpness, size=(length, 1))
    return np.round(table, 1)
