"""The number of rows above which a forward takes longer, and the best padding of row counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from d3mlx.bench.forwards import Timing

WITHIN = 0.15
"""Times up to this share above the time of one row count as equal to it."""

PADDINGS = (8, 16, 32, 64)
EQUAL = 0.03
"""Paddings whose mean costs differ by less than this share are equally good. The larger one makes fewer shapes."""

Curve = dict[int, float]
"""Seconds per forward, by number of rows."""


@dataclass(frozen=True)
class Fit:
    """t(rows) = max(floor, per_row * rows), in seconds. error: root mean square of the relative deviations."""

    floor: float
    per_row: float
    error: float

    @property
    def rows(self) -> float:
        """Return the number of rows at which both terms are equal."""
        return self.floor / self.per_row


@dataclass(frozen=True)
class Crossover:
    """Result of a measurement of forward times.

    rows: the largest measured count up to which no forward takes more than 15 % longer than that of the smallest count.
    fit: None with fewer than two measurements. padding: see `best_padding_of`.
    """

    rows: int
    fit: Fit | None
    padding: int | None


def find_crossover(steps: Sequence[Timing]) -> Crossover:
    """Return the crossover of one or more timings, which ascend by rows."""
    curve = {step.rows: step.seconds for step in steps}
    return Crossover(flat_rows(curve), fitted(curve), best_padding_of(curve))


def flat_rows(curve: Curve) -> int:
    """Return the largest row count up to which all forwards take about the same time."""
    counts = sorted(curve)
    limit = (1 + WITHIN) * curve[counts[0]]
    slow = next((i for i, count in enumerate(counts) if curve[count] > limit), len(counts))
    return counts[slow - 1]


def fitted(curve: Curve) -> Fit | None:
    """Return the best least-squares fit of log(time) over all splits of the counts into a floor and a slope."""
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
    """Return the best multiple to round row counts up to: 8, 16, 32 or 64.

    The cost of a multiple is the mean time of 1 to 64 rows after rounding. Of all multiples within 3 % of the least
    cost, the largest is the best, because it makes the fewest shapes. Return None if a multiple of 8 up to 64 is
    missing in the measurements.
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
