"""Where more rows begin to cost more, and what that says about padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from d3mlx.bench.forwards import Timing

WITHIN = 0.15
"""Share of the time of one row that still counts as the same time."""

PADDINGS = (8, 16, 32, 64)
EQUAL = 0.03
"""Paddings whose mean costs differ by less than this share are equally good; the larger one has fewer shapes."""

Curve = dict[int, float]
"""Seconds of a forward by its rows."""


@dataclass(frozen=True)
class Fit:
    """t(rows) = max(floor, per_row * rows), in seconds. error: the typical relative deviation of the measurements."""

    floor: float
    per_row: float
    error: float

    @property
    def rows(self) -> float:
        """Where the two meet."""
        return self.floor / self.per_row


@dataclass(frozen=True)
class Crossover:
    """rows: the largest measured count up to which every count takes at most 15 % longer than one row (the smallest
    measured count). fit: the two straight pieces through all measurements, None below two of them. padding: see
    `best_padding_of`."""

    rows: int
    fit: Fit | None
    padding: int | None


def find_crossover(steps: Sequence[Timing]) -> Crossover:
    """Return the crossover of at least one timing, ascending by rows."""
    curve = {step.rows: step.seconds for step in steps}
    return Crossover(flat_rows(curve), fitted(curve), best_padding_of(curve))


def flat_rows(curve: Curve) -> int:
    counts = sorted(curve)
    limit = (1 + WITHIN) * curve[counts[0]]
    slow = next((i for i, count in enumerate(counts) if curve[count] > limit), len(counts))
    return counts[slow - 1]


def fitted(curve: Curve) -> Fit | None:
    """Least squares of log(time), for each way to give the first counts to the floor and the others to the slope."""
    counts = sorted(curve)
    if len(counts) < 2:
        return None

    def fit(split: int) -> Fit:
        floor = math.exp(mean([math.log(curve[count]) for count in counts[:split]]))
        per_row = math.exp(mean([math.log(curve[count] / count) for count in counts[split:]]))
        off = [math.log(max(floor, per_row * count) / curve[count]) ** 2 for count in counts]
        return Fit(floor, per_row, math.sqrt(mean(off)))

    return min((fit(split) for split in range(1, len(counts))), key=lambda candidate: candidate.error)


def best_padding_of(curve: Curve) -> int | None:
    """The multiple that row counts are best rounded up to: 8, 16, 32 or 64.

    Its cost is the mean time of 1 to 64 rows after rounding; the largest of those within 3 % of the least cost
    is the best, because it makes the fewest shapes. None unless every multiple of 8 up to 64 was measured.
    """
    least, most = PADDINGS[0], PADDINGS[-1]
    if any(count not in curve for count in range(least, most + 1, least)):
        return None
    costs = {
        padding: mean([curve[-(-needed // padding) * padding] for needed in range(1, most + 1)]) for padding in PADDINGS
    }
    return max(padding for padding, value in costs.items() if value <= (1 + EQUAL) * min(costs.values()))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
