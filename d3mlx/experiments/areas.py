"""AUP of the report's curves, with the interval that resampling the problems gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d3mlx.evaluate.aup import TOLERANCE, aup
from d3mlx.evaluate.records import Record
from d3mlx.evaluate.results import Point
from d3mlx.experiments.contestants import Y_MAX

RESAMPLES = 2000

Place = tuple[float, float]
"""Tokens per forward, accuracy in percent."""


@dataclass(frozen=True)
class Area:
    """AUP with its 95 % interval, and how many of the curve's points it counts."""

    value: float
    low: float
    high: float
    counted: int


def near(places: Sequence[Place], start: Place) -> list[Place]:
    """The places that AUP counts: those at most 5 points below the start."""
    return [place for place in places if place[1] >= start[1] - TOLERANCE]


def curve_area(places: Sequence[Place], start: Place) -> float:
    """A single place stands alone; a curve begins at the start, so that all are held to the same accuracy."""
    return aup(places if len(places) == 1 else [start, *near(places, start)], Y_MAX)


def resampled(records: Sequence[Record]) -> list[Place]:
    """A point's places had the problems been others like these, drawn alike for every point."""
    ordered = sorted(records, key=lambda record: record.index)
    drawn = np.random.default_rng(0).integers(0, len(ordered), (RESAMPLES, len(ordered)))
    columns = [(record.tokens, record.forwards, record.correct) for record in ordered]
    tokens, forwards, correct = (np.array(column)[drawn].sum(axis=1) for column in zip(*columns, strict=True))
    return list(zip((tokens / forwards).tolist(), (100 * correct / len(ordered)).tolist(), strict=True))


def place(point: Point) -> Place:
    return point.score.tokens_per_forward, 100 * point.score.accuracy


def area(points: Sequence[Point], start: Point) -> Area:
    """AUP of a curve of a decoder relative to Y_MAX (d3LLM), which begins at `start`, on the same problems."""
    places = [place(point) for point in points]
    starts, others = resampled(start.records), [resampled(point.records) for point in points]
    values = [curve_area(found, began) for began, *found in zip(starts, *others, strict=True)]
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    counted = 1 if len(places) == 1 else len(near(places, place(start)))
    return Area(curve_area(places, place(start)), low, high, counted)
