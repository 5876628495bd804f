"""Tests of cost curves, and of the file that keeps them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.bench.curve import Curve

M3_MAX = {1: 0.129, 2: 0.129, 4: 0.165, 6: 0.263, 8: 0.323, 9: 0.405, 10: 0.51, 16: 0.51, 32: 0.51, 33: 1.0, 64: 1.0}
"""Milliseconds of a 4-bit product on an M3 Max: published, but for 64 rows, which fill the two tiles of 33."""

MEASURED = st.dictionaries(st.integers(1, 1000), st.floats(1e-6, 1e3), min_size=1, max_size=20)


@given(MEASURED, st.lists(st.floats(1, 3000), min_size=2))
def test_a_larger_count_never_costs_less(measured: dict[int, float], rows: list[float]) -> None:
    curve = Curve.of(measured.items())
    assert [count for count, _ in curve.points] == sorted(measured)
    assert all(curve.seconds(less) <= curve.seconds(more) * (1 + 1e-9) for less, more in pairwise(sorted(rows)))
    for count, seconds in curve.points:
        # A count costs what it was measured, or what a larger count to which it can be padded was measured.
        assert curve.seconds(count) == seconds == min(time for other, time in measured.items() if other >= count)


def test_costs_between_the_points() -> None:
    curve = Curve.of([(32, 0.5), (8, 0.3), (4, 0.2), (33, 1.0), (10, 0.5)])
    assert curve.seconds(1) == curve.seconds(4) == 0.2
    assert curve.seconds(6) == pytest.approx(0.25)
    assert [curve.seconds(rows) for rows in (10, 11, 31, 32)] == [0.5] * 4
    assert curve.seconds(33) == 1.0
    assert curve.seconds(66) == pytest.approx(2.0)
    assert curve.per_row(66) == curve.per_row(660) == pytest.approx(1 / 33)


def test_good_counts_are_the_ends_of_stairs() -> None:
    assert Curve.of(M3_MAX.items()).good_counts() == (4, 8, 32)
    smooth = Curve.of((rows, 5 + 0.2 * rows) for rows in (1, 8, 32, 64, 512))
    assert smooth.good_counts() == ()


def test_points_that_are_no_curve_are_refused() -> None:
    for points in ((), ((0, 1.0),), ((1, 0.0),), ((2, 1.0), (1, 2.0)), ((1, 2.0), (2, 1.0)), ((1, float("nan")),)):
        with pytest.raises(ValueError, match="points"):
            Curve(points)
    with pytest.raises(ValueError, match="points"):
        Curve.of([(1, 1.0), (1, 2.0)])


# --- the saved file
