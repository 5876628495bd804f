"""95 % confidence intervals of an accuracy, and of the difference of two runs on the same problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def wilson(correct: int, count: int) -> tuple[float, float]:
    """Return Wilson's score interval of `correct` out of `count`, as shares. (0, 1) if `count` is 0."""
    if count == 0:
        return 0.0, 1.0
    share = correct / count
    center = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + (Z / (2 * count)) ** 2)
    # Rounding may move an end of the interval past a share of 0 or 1.
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


@dataclass(frozen=True)
class Difference:
    """Accuracy of a run minus that of another on the same problems, as shares, with its 95 % interval."""

    count: int
    gained: int
    lost: int
    value: float
    low: float
    high: float


def paired_difference(before: Sequence[bool], after: Sequence[bool]) -> Difference:
    """Return the difference `after` - `before` of two sequences about the same problems.

    Only problems that exactly one of the runs solves count. The interval is Bonett and Price's adjusted Wald interval
    (2012). It keeps its level for few problems and for equal runs. Raises ValueError if the lengths differ.
    """
    pairs = list(zip(before, after, strict=True))
    count = len(pairs)
    gained = sum(now and not then for then, now in pairs)
    lost = sum(then and not now for then, now in pairs)
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    value = (gained - lost) / count if count else 0.0
    return Difference(count, gained, lost, value, max(-1.0, up - down - half), min(1.0, up - down + half))
