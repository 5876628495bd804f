"""Forward times predicted from published figures, with the row counts of MLX's kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from d3mlx.bench import kernels
from d3mlx.bench.chips import Chip
from d3mlx.bench.cost import Cost
from d3mlx.bench.curve import Curve

FORMULA = "t(rows) = sum of tiles * max(bytes / bandwidth, rows of a tile * FLOP / effective FLOP/s)"

LAYER = 82e-6
"""Seconds per layer outside the kernels, mostly launches. Source: mlx-lm's BENCHMARKS.md (M4 Max, Qwen3-4B with 36
layers, generation). 134.5 tokens per second at 2.26 GB give 81 microseconds with `kernels.READING`, and 52.5 tokens per
second at 8.04 GB give 83. Assumed equal on all chips."""


@dataclass(frozen=True)
class Roofline:
    """One model on one chip. All times in seconds."""

    chip: Chip
    cost: Cost

    @property
    def bandwidth(self) -> float:
        """Return the expected memory bandwidth of a kernel, in bytes per second."""
        return kernels.READING * self.chip.bandwidth

    @property
    def ceiling(self) -> float:
        """Return the tokens per second of an autoregressive model, which commits one token per forward of one row."""
        return 1 / self.seconds(1)

    def seconds(self, rows: float) -> float:
        """Return the seconds per forward of `rows` rows. A fraction of a row counts as a row."""
        whole = math.ceil(rows)
        return self.products(whole) + self.chosen(whole) + self.attention(whole) + LAYER * self.cost.layers

    def products(self, rows: int) -> float:
        """Return the seconds of the products with the matrices that every row uses, with the head for all rows."""
        cost = self.cost
        return sum(
            kernels.seconds(self.chip, matrix, rows, cost.bits, quantized=cost.quantized) for matrix in cost.matrices
        )

    def chosen(self, rows: int) -> float:
        """Return the seconds of the experts that `rows` rows choose."""
        reading = (self.cost.nbytes(rows) - self.cost.nbytes(0)) / self.bandwidth
        return max(reading, rows * self.cost.expert_flop / self.chip.flops)

    def attention(self, rows: int) -> float:
        """Return the seconds of the products with K and V."""
        return max(self.cost.cache_bytes / self.bandwidth, rows * self.cost.attention_flop / self.chip.flops)

    def curve(self, rows: Iterable[int]) -> Curve:
        """Return the cost curve through these row counts."""
        return Curve.of((count, self.seconds(count)) for count in set(rows))
