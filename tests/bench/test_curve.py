"""Tests of cost curves, and of the file that keeps them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3mlx.bench.shapes import Sizes, skeleton
from d3mlx.curve import Curve
from d3mlx.errors import ConfigError
from d3mlx.tuning import best_padding, save_curve, save_padding, saved_curve, shape_key

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

ARGS = skeleton(Sizes("llada", 2, 64, 4, 2, 128, 100)).args
OTHER = skeleton(Sizes("dream", 2, 64, 4, 2, 128, 100)).args
CURVES = [Curve(((1, 0.5), (32, float(i)))) for i in range(1, 5)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("D3MLX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_curve_is_saved_per_device_and_shape(folder: Path) -> None:
    assert saved_curve(ARGS, "Apple M4 Max") is None
    assert not folder.exists()
    assert save_curve(ARGS, "Apple M4 Max", CURVES[0], "4-bit") == folder / "bench.json"
    save_curve(OTHER, "Apple M4 Max", CURVES[1], "bfloat16")
    save_curve(ARGS, "Apple M1", CURVES[2], "4-bit")
    assert saved_curve(ARGS, "Apple M4 Max") == CURVES[0]
    assert saved_curve(OTHER, "Apple M4 Max") == CURVES[1]
    assert saved_curve(ARGS, "Apple M1") == CURVES[2]
    assert saved_curve(OTHER, "Apple M1") is None
    save_curve(ARGS, "Apple M1", CURVES[3], "8-bit")
    assert saved_curve(ARGS, "Apple M1") == CURVES[3]
    record = json.loads((folder / "bench.json").read_text())["Apple M1"][shape_key(ARGS)]
    assert (record["curve"], record["weights"], set(record)) == ([[1, 0.5], [32, 4.0]], "8-bit", set(record) | {"date"})
    assert [file.name for file in folder.iterdir()] == ["bench.json"]


def test_a_record_without_a_curve_stays_readable(folder: Path) -> None:
    save_padding(ARGS, "M1", 16, "4-bit")
    assert saved_curve(ARGS, "M1") is None
    assert best_padding(ARGS, "M1") == 16


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**400) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
DAMAGE = st.one_of(
    st.binary(max_size=20),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps({"M1": value}).encode()),
    JSON.map(lambda value: json.dumps({"M1": {shape_key(ARGS): value}}).encode()),
    JSON.map(lambda value: json.dumps({"M1": {shape_key(ARGS): {"curve": value}}}).encode()),
    st.lists(JSON, min_size=2, max_size=2).map(
        lambda value: json.dumps({"M1": {shape_key(ARGS): {"curve": [[1, 0.5], value]}}}).encode()
    ),
    st.just(b"[" * 100_000),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_a_damaged_file_counts_as_missing(folder: Path, damage: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_bytes(damage)
    curve: Any = saved_curve(ARGS, "M1")
    if curve is not None:
        # Some of the random values are a valid curve.
        stored = json.loads(damage)["M1"][shape_key(ARGS)]["curve"]
        assert [list(point) for point in curve.points] == stored
        assert all(0 < curve.seconds(rows) < float("inf") for rows in (1, 32, 1000))
    save_curve(ARGS, "M1", CURVES[0], "4-bit")
    assert saved_curve(ARGS, "M1") == CURVES[0]


def test_a_file_that_cannot_be_written_is_reported(folder: Path) -> None:
    (folder / "bench.json").mkdir(parents=True)
    assert saved_curve(ARGS, "M1") is None
    with pytest.raises(ConfigError, match=r"bench\.json"):
        save_curve(ARGS, "M1", CURVES[0], "4-bit")
