"""The tables of decoders, made from recorded answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from d3mlx.errors import DataError
from d3mlx.evaluate.records import Record
from d3mlx.research.experiments.decoders import POINTS, TASKS, section
from d3mlx.research.experiments.journal import Part, solve_missing

FORWARDS, ROWS = 21, 228 + 20 * 16


def answer(index: int, correct: bool) -> Record:
    """Return a record of 80 tokens: a first pass over 100 prompt and 128 canvas tokens, then 20 forwards of 16 rows."""
    return Record(index, correct, None, "1, 2", None, 0, 100, 80, FORWARDS, ROWS, 100, "")


def journals(work: Path, parts: tuple[str, ...]) -> None:
    """Write two answers to two problems each: all decoders solve the first, and only selective solves the second."""
    names = {"table": TASKS["long"].decoders, "curves": POINTS}
    for kind, decoders in names.items():
        for part in map(Part.named, parts):
            attempts = {name: partial(by, name) for name in decoders}
            solve_missing(attempts, part.of(range(2)), work / f"long-{kind}" / part.file, {"kind": kind})


def by(name: str, index: int) -> Record:
    return answer(index, index == 0 or name.startswith("selective"))


def test_an_answer_of_the_long_task_solves_two_problems(tmp_path: Path) -> None:
    journals(tmp_path, ("1/2", "2/2"))
    text = section(tmp_path, "long", 4, 4)
    assert "4 held-out problems, 2 at once, after 3 worked examples." in text
    assert "Each of the 2 answers is correct only if all its results are." in text
    assert "Prompts have 100 tokens, and the canvas has 128." in text
    assert "| selective | 100.0 %" in text and "| d3llm | 50.0 %" in text
    assert f"| {80 / FORWARDS:.2f} | {ROWS / 80:.1f} |" in text


def test_an_incomplete_measurement_is_not_written(tmp_path: Path) -> None:
    journals(tmp_path, ("1/2",))
    with pytest.raises(DataError, match="Run all parts"):
        section(tmp_path, "long", 4, 4)
