"""The cost curve of a device: seconds of a forward by its number of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

CLEARLY = 0.05
"""A row costs clearly more if its cost is higher by more than this share. Medians of a quiet GPU vary by less."""


@dataclass(frozen=True)
class Curve:
    """Seconds of a forward by number of rows, for one device and model.

    points: pairs of a row count and seconds, one or more. Row counts ascend, and seconds never fall.
    """

    points: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, points: Iterable[tuple[int, float]]) -> Curve:
        """Return the curve of measured points in any order, which may contain noise.

        A count costs at most as much as every larger count: the running minimum from the right. A forward can be padded
        to a larger count, so its rows never need to cost more. A disturbance makes a measurement longer, not shorter,
        so the shorter one of two contradictory measurements is closer to the truth.
        """
        descending = sorted(points, reverse=True)
        least = accumulate((seconds for _, seconds in descending), min)
        return cls(tuple(zip((rows for rows, _ in descending), least, strict=True))[::-1])

    def good_counts(self) -> tuple[int, ...]:
        """Return the counts of the points after which rows become more expensive, ascending.

        At a good count a row costs no more than at every smaller count, and at the next point clearly more. The last
        point is not compared. Empty if more rows are always cheaper per row.
        """
        counts = [rows for rows, _ in self.points]
        per_row = [seconds / rows for rows, seconds in self.points]
        lowest = accumulate(per_row, min)
        return tuple(
            rows
            for rows, here, after, least in zip(counts, per_row, per_row[1:], lowest, strict=False)
            if here <= least and after > (1 + CLEARLY) * least
        )
