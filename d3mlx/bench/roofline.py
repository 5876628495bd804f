"""Forward times predicted from published figures: whatever takes longer, reading the weights or the arithmetic."""

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

    @property
    def floor(self) -> float:
        """Time to read the weights and the cache once."""
        return self.cost.nbytes / self.chip.achieved_bandwidth

    @property
    def per_row(self) -> float:
        """Arithmetic of one row."""
        return self.cost.flop_per_row / self.chip.flops

    @property
    def crossover(self) -> float:
        """Rows up to which a forward takes no longer than with one."""
        return self.floor / self.per_row

    @property
    def ceiling(self) -> float:
        """Tokens a second of a model that commits one token with every forward of one row, as autoregression does."""
        return 1 / self.seconds(1)

    def seconds(self, rows: float) -> float:
        return max(self.floor, rows * self.per_row)

    def times(self, rows: Sequence[int]) -> list[tuple[int, float]]:
        """Return the row counts, ascending, and the seconds of a forward of each."""
        return [(count, self.seconds(count)) for count in sorted(set(rows))]
