"""AUP of the report's curves, with intervals from resampled problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d3mlx.evaluate.aup import aup, near
from d3mlx.evaluate.records import Record
from d3mlx.evaluate.results import OperatingPoint
from d3mlx.research.experiments.contestants import Y_MAX

RESAMPLES = 2000

Coordinates = tuple[float, float]
"""Tokens per forward, accuracy in percent."""


@dataclass(frozen=True)
class Area:
    """AUP with its 95 % interval, and the number of the curve's points that it includes."""

    value: float
    low: float
    high: float
    counted: int


def resampled(records: Sequence[Record]) -> list[Coordinates]:
    """Return the coordinates of a point for every bootstrap sample of the problems. All points use the same samples."""
    ordered = sorted(records, key=lambda record: record.index)
    drawn = np.random.default_rng(0).integers(0, len(ordered), (RESAMPLES, len(ordered)))
    columns = [(record.tokens, record.forwards, record.correct) for record in ordered]
    tokens, forwards, correct = (np.array(column)[drawn].sum(axis=1) for column in zip(*columns, strict=True))
    return list(zip((tokens / forwards).tolist(), (100 * correct / len(ordered)).tolist(), strict=True))


def area(points: Sequence[OperatingPoint], start: OperatingPoint | None = None) -> Area:
    """Return the AUP of a decoder's curve relative to Y_MAX (d3LLM).

    start: a first point for the curve, on the same problems, so that all curves are compared with the same accuracy. It
    has no effect on a curve of one point.
    """
    own = len(points)
    curve = [start, *points] if start is not None and own > 1 else points
    coordinates = [(point.score.tokens_per_forward, 100 * point.score.accuracy) for point in curve]
    samples = zip(*(resampled(point.records) for point in curve), strict=True)
    low, high = np.percentile([aup(near(curve_of_sample), Y_MAX) for curve_of_sample in samples], (2.5, 97.5)).tolist()
    return Area(aup(near(coordinates), Y_MAX), low, high, len(near(coordinates)) - (len(curve) - own))
