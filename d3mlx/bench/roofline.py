"""Forward times predicted from published figures: the longer of the times for reading and for arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d3mlx.bench.chips import Chip
from d3mlx.bench.cost import Cost

FORMULA = "t(rows) = max(bytes / bandwidth, rows * FLOP per row / effective FLOP/s)"


@dataclass(frozen=True)
class Roofline:
    """One model on one chip. All times in seconds."""

    chip: Chip
    cost: Cost

    def reading(self, rows: float) -> float:
        """Return the seconds to read what a forward of `rows` rows needs of weights and cache."""
        return self.cost.nbytes(rows) / self.chip.achieved_bandwidth

    @property
    def per_row(self) -> float:
        """Return the seconds for the arithmetic of one row."""
        return self.cost.flop_per_row / self.chip.flops

    @property
    def crossover(self) -> float:
        """Return the number of rows up to which reading takes longer than arithmetic."""
        low, high = 0.0, self.reading(float("inf")) / self.per_row
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.reading(middle) > middle * self.per_row else (low, middle)
        return high

    @property
    def ceiling(self) -> float:
        """Return the tokens per second of an autoregressive model, which commits one token per forward of one row."""
        return 1 / self.seconds(1)

    def seconds(self, rows: float) -> float:
        """Return the seconds per forward of `rows` rows."""
        return max(self.reading(rows), rows * self.per_row)

    def times(self, rows: Sequence[int]) -> list[tuple[int, float]]:
        """Return pairs of row count and seconds per forward, ascending."""
        return [(count, self.seconds(count)) for count in sorted(set(rows))]
