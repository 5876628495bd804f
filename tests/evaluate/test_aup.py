"""Tests of AUP, with all published values, and of confidence intervals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.errors import ConfigError
from d3mlx.evaluate.aup import aup, near
from d3mlx.evaluate.statistics import paired_difference, wilson

CASES = json.loads((Path(__file__).parents[1] / "golden" / "aup.json").read_text())


def pairs(case: dict[str, Any]) -> list[tuple[float, float]]:
    return [(rho, y) for rho, y in case["points"]]


def test_all_published_values() -> None:
    assert len(CASES["published"]) == 77
    for case in CASES["published"]:
        assert aup(pairs(case), case["y_max"]) == pytest.approx(case["aup"], abs=1e-9), case


@pytest.mark.parametrize("case", CASES["synthetic"])
def test_other_curves_weights_and_tolerances(case: dict[str, Any]) -> None:
    names = {"alpha": "alpha", "y_min_offset": "tolerance"}
    options = {names[name]: value for name, value in case["kwargs"].items()}
    if case["aup"] == "AssertionError":
        with pytest.raises(ConfigError, match="AUP is not defined"):
            aup(pairs(case), case["y_max"], **options)
    else:
        assert aup(pairs(case), case["y_max"], **options) == pytest.approx(case["aup"], abs=1e-9)


POINTS = st.lists(st.tuples(st.floats(1, 20), st.floats(70, 75)), min_size=1, max_size=8)


@given(POINTS, st.integers(0, 99))
def test_the_order_of_points_does_not_matter_and_accuracy_increases_aup(
    points: list[tuple[float, float]], seed: int
) -> None:
    shuffled = random.Random(seed).sample(points, len(points))
    area = aup(points, 80)
    assert aup(shuffled, 80) == area
    assert aup([(rho, y + 1) for rho, y in points], 80) > area
    widest = max(rho for rho, _ in points)
    assert area <= widest * 75 + 1e-9


def test_points_far_below_the_first_do_not_count() -> None:
    curve = [(1.0, 50.0), (3.0, 48.0)]
    assert aup([*curve, (2.0, 44.9)], 50) == aup(curve, 50)
    assert aup([*curve, (2.0, 45.0)], 50) < aup(curve, 50)


@pytest.mark.parametrize(("points", "y_max"), [([], 50.0), ([(1.0, 0.0)], 0.0), ([(1.0, 2.0)], float("nan"))])
def test_invalid_points_have_no_aup(points: list[tuple[float, float]], y_max: float) -> None:
    with pytest.raises(ConfigError):
        aup(points, y_max)


def test_wilson() -> None:
    """Both ends satisfy the score equation that defines the interval: |p - share| = z sqrt(p (1 - p) / n)."""
    for correct, count in [(0, 10), (3, 10), (10, 10), (160, 1000)]:
        low, high = wilson(correct, count)
        share = correct / count
        assert 0 <= low <= share <= high <= 1
        for end in {low, high} - {0.0, 1.0}:
            assert abs(end - share) == pytest.approx(1.959964 * (end * (1 - end) / count) ** 0.5, rel=1e-5)
    assert wilson(0, 0) == (0, 1)


def test_paired_difference() -> None:
    before = [True] * 40 + [False] * 60
    after = [True] * 35 + [False] * 5 + [True] * 15 + [False] * 45
    difference = paired_difference(before, after)
    assert (difference.count, difference.gained, difference.lost, difference.value) == (100, 15, 5, pytest.approx(0.10))
    # By hand: the shares are 16/102 and 6/102, the difference 10/102, its deviation sqrt((22/102 - (10/102)^2) / 102).
    assert (difference.low, difference.high) == (pytest.approx(0.009942, abs=1e-6), pytest.approx(0.186136, abs=1e-6))
    opposite = paired_difference(after, before)
    assert (opposite.low, opposite.high) == (pytest.approx(-difference.high), pytest.approx(-difference.low))
    same = paired_difference(before, before)
    assert same.low < 0 == same.value < same.high
    with pytest.raises(ValueError):
        paired_difference(before, after[:-1])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_an_interval_contains_the_adjusted_difference(pairs: list[tuple[bool, bool]]) -> None:
    difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    assert (
        -1 <= difference.low <= (difference.gained - difference.lost) / (difference.count + 2) <= difference.high <= 1
    )


@given(st.integers(100, 2000), st.integers(0, 99))
def test_a_point_exactly_at_the_tolerance_counts(problems: int, seed: int) -> None:
    problems -= problems % 20
    correct = problems // 20 + seed * (problems - problems // 20) // 99
    curve = [(1.0, 100 * correct / problems), (2.0, 100 * (correct - problems // 20) / problems)]
    assert aup(curve, 100) >= curve[0][1]
    assert len(near(curve)) == 2
