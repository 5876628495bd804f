"""The cost curve of a device: seconds of a forward by its number of rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

CLEARLY = 0.05
"""A row costs clearly more if its cost is higher by more than this share. Medians of a quiet GPU vary by less."""

MOST_ROWS = 1 << 24
MOST_SECONDS = 86_400.0
"""Largest valid numbers of a point. A larger number means that it is damaged."""


@dataclass(frozen=True)
class Curve:
    """Seconds of a forward by number of rows, for one device and model.

    points: pairs of a row count and seconds, one or more. Row counts ascend, and seconds never fall. Build a curve with
    `Curve.of` if the seconds are measurements. Raises ValueError if the points do not have this form.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if not self.points or not all(is_point(rows, seconds) for rows, seconds in self.points):
            raise ValueError(f"not points of a curve: {self.points}")
        if any(here[0] >= after[0] or here[1] > after[1] for here, after in pairwise(self.points)):
            raise ValueError(f"points that do not ascend: {self.points}")

    @classmethod
    def of(cls, points: Iterable[tuple[int, float]]) -> Curve:
        """Return the curve of measured points in any order, which may contain noise.

        A count costs at most as much as every larger count: the running minimum from the right. A forward can be padded
        to a larger count, so its rows never need to cost more. A disturbance makes a measurement longer, not shorter,
        so the shorter one of two contradictory measurements is closer to the truth. Raises ValueError.
        """
        descending = sorted(points, reverse=True)
        least = accumulate((seconds for _, seconds in descending), min)
        return cls(tuple(zip((rows for rows, _ in descending), least, strict=True))[::-1])

    def seconds(self, rows: float) -> float:
        """Return the seconds of a forward of `rows` rows, 1 or more.

        Linear between two points. On a stair both points have the same height, so a linear rule is a stair there.
        Proportional to the rows after the last point, and the cost of the first point before it. The result never
        falls with `rows`.
        """
        last, longest = self.points[-1]
        if rows > last:
            return longest * rows / last
        above = bisect_left(self.points, (rows,))
        high, most = self.points[above]
        if above == 0 or rows == high:
            return most
        low, least = self.points[above - 1]
        return least + (most - least) * (rows - low) / (high - low)

    def per_row(self, rows: float) -> float:
        """Return the seconds per row of a forward of `rows` rows."""
        return self.seconds(rows) / rows

    def good_counts(self) -> tuple[int, ...]:
        """Return the counts of the points after which rows become more expensive, ascending.

        At a good count a row costs no more than at every smaller count, and at the next point clearly more. The last
        point is not compared. Empty if more rows are always cheaper per row.
        """
        counts = [rows for rows, _ in self.points]
        least = accumulate(map(self.per_row, counts), min)
        return tuple(
            rows
            for rows, after, lowest in zip(counts, counts[1:], least, strict=False)
            if self.per_row(rows) <= lowest and self.per_row(after) > (1 + CLEARLY) * lowest
        )


def is_point(rows: object, seconds: object) -> bool:
    """Return whether two values are a row count and a time above 0."""
    numbers = type(rows) is int and type(seconds) in (int, float)
    return numbers and 1 <= rows <= MOST_ROWS and 0 < seconds <= MOST_SECONDS  # type: ignore[operator]
