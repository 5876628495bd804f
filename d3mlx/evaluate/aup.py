"""AUP, accuracy under parallelism: one number for a curve of accuracy over tokens per forward (d3LLM)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from d3mlx.errors import ConfigError

ALPHA = 3.0
"""How fast accuracy below the best one loses its weight."""

TOLERANCE = 5.0
"""Percentage points of accuracy that parallelism may cost."""


def weight(accuracy: float, y_max: float, alpha: float = ALPHA) -> float:
    """W(y) = min(exp(-alpha (1 - y / y_max)), 1)."""
    return min(math.exp(-alpha * (1 - accuracy / y_max)), 1.0)


def near(curve: Sequence[tuple[float, float]], tolerance: float = TOLERANCE) -> list[tuple[float, float]]:
    """The points (rho, y) that AUP counts: those at most `tolerance` below the least parallel one, as written."""
    # Accuracies are quotients, so two that lie exactly 5 apart may differ by a little more.
    lowest = min(curve)[1] - tolerance - 1e-9
    return [(rho, y) for rho, y in curve if y >= lowest]


def aup(
    points: Sequence[tuple[float, float]], y_max: float, *, alpha: float = ALPHA, tolerance: float = TOLERANCE
) -> float:
    """Area under the weighted curve of accuracy over parallelism.

    points: (rho, y), tokens per forward and accuracy in percent, in any order; y_max: the best accuracy, in percent,
    of any method that is compared on the task. With the points sorted by rho, and without those whose y lies more than
    `tolerance` below y_1,

        AUP = rho_1 y_1 + sum over i >= 2 of (rho_i - rho_(i-1)) (y_i W(y_i) + y_(i-1) W(y_(i-1))) / 2

    The first term has no weight, so a single point gives rho_1 y_1. Raises ConfigError if there is no point, if y_max
    is not above 0, or if the last point lies more than `tolerance` below the first: such a curve has no AUP.
    """
    if not points:
        raise ConfigError("AUP needs at least one point.")
    if not 0 < y_max < math.inf:
        raise ConfigError(f"AUP is relative to a best accuracy (y-max) above 0 percent, not {y_max:g}.")
    curve = sorted(points)
    (first_rho, first_y), (_, last_y) = curve[0], curve[-1]
    counted = near(curve, tolerance)
    if counted[-1] != curve[-1]:
        raise ConfigError(
            f"AUP is not defined: the most parallel point has {last_y:.2f} % accuracy, more than {tolerance:g} below "
            f"the {first_y:.2f} % of the least parallel one; leave out the points that are worse."
        )
    heights = [y * weight(y, y_max, alpha) for _, y in counted]
    area = first_rho * first_y
    for i in range(1, len(counted)):
        area += (counted[i][0] - counted[i - 1][0]) * (heights[i] + heights[i - 1]) / 2
    return area
