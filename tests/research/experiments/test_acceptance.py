"""The comparison of one threshold with a relaxed one, made from recorded answers and from the bundled student."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3mlx.evaluate.records import Record, Setting
from d3mlx.evaluate.results import OperatingPoint
from d3mlx.research.experiments import acceptance
from d3mlx.research.experiments.acceptance import PLAIN, RELAXED, SUBJECTS, THRESHOLDS, above, measure, rows_of


def point(forwards: int, correct: int) -> OperatingPoint:
    """Return a point of four answers of 12 tokens, of which the first `correct` are correct."""
    records = [Record(i, i < correct, None, None, None, 0, 10, 12, forwards, 60, 10, "") for i in range(4)]
    return OperatingPoint(Setting(), records)


def test_the_difference_at_equal_tokens_per_forward_is_from_a_line_between_two_points() -> None:
    """The curve has 75 % at 3 tokens per forward and 25 % at 6, so 50 % at 4.5."""
    curve = [point(4, 3), point(2, 1)]
    assert above(point(3, 2), curve) == pytest.approx(100 * (0.5 - (0.75 - 0.5 / 3)))
    assert above(point(1, 1), curve) is None


def test_a_row_compares_with_the_same_threshold() -> None:
    plain = [point(4, 3), point(3, 2), point(2, 1)]
    rows = rows_of("student", {PLAIN: plain, RELAXED: [point(3, 3), *plain[1:]]})
    assert [row[1] for row in rows] == [f"{threshold:g}" for threshold in THRESHOLDS for _ in range(2)]
    assert rows[0][4:6] == ["", ""]
    # At the same threshold both have 75 %. At the TPF of the relaxed variant the curve has 50 %.
    assert rows[1][4].startswith("+0.0") and rows[1][5] == "+25.0"


def test_answers_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "THRESHOLDS", (0.5,))
    first = measure(SUBJECTS["student"], 2, tmp_path)
    monkeypatch.setattr(acceptance.EvalModel, "seed_of", lambda self, index: pytest.fail("solved again"))
    again = measure(SUBJECTS["student"], 2, tmp_path)
    assert [points[0].records for points in again.values()] == [points[0].records for points in first.values()]
