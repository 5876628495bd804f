"""Tests of cost curves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from d3mlx.bench.curve import Curve

M3_MAX = {1: 0.129, 2: 0.129, 4: 0.165, 6: 0.263, 8: 0.323, 9: 0.405, 10: 0.51, 16: 0.51, 32: 0.51, 33: 1.0, 64: 1.0}
"""Milliseconds of a 4-bit product on an M3 Max: published, but for 64 rows, which fill the two tiles of 33."""

MEASURED = st.dictionaries(st.integers(1, 1000), st.floats(1e-6, 1e3), min_size=1, max_size=20)


@given(MEASURED)
def test_a_larger_count_never_costs_less(measured: dict[int, float]) -> None:
    """A count costs its own measurement, or that of a larger count to which it can be padded."""
    points = Curve.of(measured.items()).points
    assert [count for count, _ in points] == sorted(measured)
    for count, seconds in points:
        assert seconds == min(time for other, time in measured.items() if other >= count)


def test_good_counts_are_the_ends_of_stairs() -> None:
    assert Curve.of(M3_MAX.items()).good_counts() == (4, 8, 32)
    smooth = Curve.of((rows, 5 + 0.2 * rows) for rows in (1, 8, 32, 64, 512))
    assert smooth.good_counts() == ()
