"""Check of the Metal kernels before a run: every variant that the run will use is compiled and compared.

The check decodes a short canvas with the decoder of the run and a model without weights. So it calls each kernel as the
run will, and no kernel is compiled in the middle of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from d3mlx.canvas import Canvas
from d3mlx.checkpoints.loader import compute_dtype
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.sampling import Sampling
from d3mlx.engine import decode
from d3mlx.kernels import dispatch, guard
from d3mlx.kernels.refresh_rows import Rotary, refresh_rows
from d3mlx.models import DiffusionModel
from d3mlx.models.transformer import LayerCache, Positions, rope_of

VOCABULARY = 64
MASKS = 16
"""Length of the canvas. The numbers of eligible rows go from above `guard.SMALL` to 1."""

_done: set[str] = set()


class Miniature:
    """A model without weights. Its kernel calls have the shift and the rotary embedding of `model`, and a dtype."""

    def __init__(self, model: DiffusionModel, dtype: mx.Dtype):
        self.family, self.shift, self.args = model.family, model.shift, model.args
        self.layers: list[Any] = [None]
        self.shape = model.args.shape()
        self.rotary = Rotary(rope_of(self.shape))
        self.dtype = dtype

    def hidden(self, ids: mx.array, positions: Positions = 0, cache: Sequence[LayerCache] | None = None) -> mx.array:
        """Return hidden rows [B, R, 1] that contain the ids [B, R]."""
        return ids[..., None].astype(self.dtype)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return logits [N, V] with large distances, so that rounding changes no result. hidden: [N, 1]."""
        rows = mx.arange(hidden.shape[0])[:, None]
        return ((mx.arange(VOCABULARY) * 7 + rows * 3) % VOCABULARY * 0.25).astype(self.dtype)

    def rotate(self, rows: int) -> None:
        """Rotate `rows` rows at scattered positions."""
        width = self.shape.head_dim

        def heads(count: int) -> mx.array:
            return mx.sin(mx.arange(count * rows * width)).reshape(1, count, rows, width).astype(self.dtype)

        queries, keys = heads(self.shape.heads), heads(self.shape.kv_heads)
        mx.eval(refresh_rows(queries, keys, keys, self.rotary.at(3 * np.arange(rows, dtype=np.int32))))


def warm_up(model: DiffusionModel, decoder: Decoder, sampling: Sampling) -> None:
    """Check the kernels that a run will use. Without a Metal GPU, and for a known combination, do nothing."""
    if not guard.switched_on() or not dispatch.on_gpu():
        return
    dtype = compute_dtype(model)
    key = repr((model.family, dtype, model.args.shape(), decoder, replace(sampling, seed=0)))
    if key not in _done:
        _done.add(key)
        check_kernels(Miniature(model, dtype), decoder, sampling)


def check_kernels(miniature: Miniature, decoder: Decoder, sampling: Sampling) -> None:
    """Decode a short canvas, and compare each variant of a kernel with its reference. Failed kernels are replaced."""
    with guard.checking():
        for rows in (1, guard.SMALL):
            miniature.rotate(rows)
        size = decoder.block_size_of(miniature.args)
        canvas = Canvas.for_prompt([1, 2, 3], MASKS, mask_id=VOCABULARY - 1, block_size=size)
        for _ in decode(miniature, canvas, decoder, replace(sampling, seed=0)):
            pass
