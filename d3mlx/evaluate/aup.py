"""AUP (accuracy under parallelism, d3LLM): one number for a curve of accuracy over tokens per forward."""

from __future__ import annotations

import math
from collections.abc import Sequence

from d3mlx.errors import ConfigError

ALPHA = 3.0
"""Default of alpha. A higher value gives less weight to accuracies below the best."""

TOLERANCE = 5.0
"""Points of a curve count if their accuracy is at most this much lower than that of the least parallel point."""


def weight(accuracy: float, y_max: float, alpha: float = ALPHA) -> float:
    """Return W(y) = min(exp(-alpha (1 - y / y_max)), 1)."""
    return min(math.exp(-alpha * (1 - accuracy / y_max)), 1.0)


def near(curve: Sequence[tuple[float, float]], tolerance: float = TOLERANCE) -> list[tuple[float, float]]:
    """Return the points (rho, y) that AUP counts: y is at most `tolerance` below that of the least parallel point."""
    # Accuracies are quotients, so a difference of exactly 5 may be computed as slightly more.
    lowest = min(curve)[1] - tolerance - 1e-9
    return [(rho, y) for rho, y in curve if y >= lowest]


def aup(
    points: Sequence[tuple[float, float]], y_max: float, *, alpha: float = ALPHA, tolerance: float = TOLERANCE
) -> float:
    """Return the area under the weighted curve of accuracy over parallelism.

    points: (rho, y), tokens per forward and accuracy in percent, in any order. y_max: the best accuracy, in percent, of
    all methods in the comparison. The points are sorted by rho. Points with y more than `tolerance` below y_1 are left
    out. Then

        AUP = rho_1 y_1 + sum over i >= 2 of (rho_i - rho_(i-1)) (y_i W(y_i) + y_(i-1) W(y_(i-1))) / 2

    The first term has no weight, so a single point gives rho_1 y_1. Raises ConfigError without points, if y_max is not
    above 0, or if y of the last point is more than `tolerance` below y_1: such a curve has no AUP.
    """
    if not points:
        raise ConfigError("AUP needs at least one point.")
    if not 0 < y_max < math.inf:
        raise ConfigError(f"y-max, the best accuracy for AUP, must be above 0 percent, not {y_max:g}.")
    curve = sorted(points)
    (first_rho, first_y), (_, last_y) = curve[0], curve[-1]
    counted = near(curve, tolerance)
    if counted[-1] != curve[-1]:
        raise ConfigError(
            f"AUP is not defined: the most parallel point has {last_y:.2f} % accuracy, more than {tolerance:g} below "
            f"the {first_y:.2f} % of the least parallel one. Leave out such points."
        )
    heights = [y * weight(y, y_max, alpha) for _, y in counted]
    area = first_rho * first_y
    for i in range(1, len(counted)):
        area += (counted[i][0] - counted[i - 1][0]) * (heights[i] + heights[i - 1]) / 2
    return area
