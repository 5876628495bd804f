"""Recorded answers of several decoders, parts of a measurement, and generated parts of pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d3mlx import D3LLM, Selective, load
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.records import Record
from d3mlx.evaluate.run import EvalModel
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.files import lock_file
from d3mlx.research.builds import control, next_token, student, teacher
from d3mlx.research.experiments import decoders, refresh, sweep
from d3mlx.research.experiments.journal import Part, measure, read, solve_missing
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.script import script

ABOUT = {"model": "the embedded one"}


@pytest.fixture(scope="module")
def subject() -> EvalModel:
    return EvalModel(*load(EMBEDDED), max_tokens=8)


def test_an_interrupted_measurement_continues_and_parts_add_up(tmp_path: Path, subject: EvalModel) -> None:
    presets = {"exact": D3LLM("none"), "needed": Selective()}
    task = Embedded(TaskOptions(), "llada")
    for number in (1, 2):
        part = Part.named(f"{number}/2")
        measure(subject, task, presets, part.of(range(3)), tmp_path / part.file, ABOUT)
    path = tmp_path / "part-1-of-2.jsonl"
    complete = path.read_bytes()
    path.write_bytes(complete[:-30])
    measure(subject, task, presets, (0, 2), path, ABOUT)
    about, by_decoder = read(tmp_path)
    assert about.items() >= ABOUT.items() and "SelectiveCache(" in about["decoders"]["needed"]
    assert {name: sorted(answers.records) for name, answers in by_decoder.items()} == {
        "exact": [0, 1, 2],
        "needed": [0, 1, 2],
    }
    undamaged = len(complete.splitlines()) - 1
    assert path.read_bytes().splitlines()[:undamaged] == complete.splitlines()[:undamaged]
    for answers in by_decoder.values():
        assert answers.score.problems == 3 and answers.seconds_per_problem > 0
        assert answers.against(by_decoder["exact"]).count == 3
    with pytest.raises(
        ConfigError, match=r"another measurement, with another model \(the embedded one, not another one\)"
    ):
        measure(subject, task, presets, (0,), path, {"model": "another one"})
    with pytest.raises(ConfigError, match=r"another decoders needed \(.*near=\S+, .* not .*near=9"):
        measure(subject, task, presets | {"needed": Selective(near=9)}, (0,), path, ABOUT)
    with path.open("ab") as other:
        lock_file(other, path)
        with pytest.raises(ConfigError, match="Another run"):
            measure(subject, task, presets, (0,), path, ABOUT)
    head, *lines = complete.splitlines(keepends=True)
    damaged = [
        [head.replace(b"{", b"["), *lines],
        [b"null\n", *lines],
        [head, lines[0].replace(b'"tokens": ', b'"tokens": null, "t": '), *lines[1:]],
        [head, lines[0].replace(b'"index": ', b'"index": "a", "i": '), *lines[1:]],
        [head, b"[" * 100_000 + b"\n"],
    ]
    for content in damaged:
        path.write_bytes(b"".join(content))
        with pytest.raises(
            DataError, match=r"line \d: (not the settings|not valid JSON|not a record).*; remove the file"
        ):
            read(tmp_path)


def test_an_error_while_solving_does_not_blame_the_file(tmp_path: Path) -> None:
    def fail(index: int) -> Record:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        solve_missing({"failing": fail}, (0,), tmp_path / Part().file, ABOUT)


def test_tables_need_every_answer(tmp_path: Path, subject: EvalModel) -> None:
    path = tmp_path / Part().file
    measure(subject, Embedded(TaskOptions(), "llada"), {"needed": Selective()}, (0,), path, ABOUT)
    assert decoders.complete_answers(tmp_path, ["needed"], range(1))["needed"].score.problems == 1
    for names, problems in ((["needed", "exact"], range(1)), (["needed"], range(2))):
        with pytest.raises(DataError, match="not finished"):
            decoders.complete_answers(tmp_path, names, problems)


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/" + "9" * 5000])
def test_an_invalid_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="1/2"):
        Part.named(text)


def test_the_front_contains_the_settings_that_nothing_beats(tmp_path: Path, subject: EvalModel) -> None:
    presets = {f"blocks of {size}, once": Selective(block_size=size) for size in (4, 8)}
    measure(
        subject,
        Embedded(TaskOptions(), "llada", Kind(split="validation")),
        presets,
        (0, 1),
        tmp_path / "part-1-of-1.jsonl",
        ABOUT,
    )
    _, by_setting = read(tmp_path)
    for axis, (words, cost) in sweep.AXES.items():
        best = sweep.front(by_setting, cost)
        costs, shares = [cost(by_setting[name]) for name in best], [by_setting[name].score.accuracy for name in best]
        assert costs == sorted(costs) and shares == sorted(set(shares))
        assert words in sweep.picture(by_setting, axis)


def test_generated_text_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    rows = table(["a", "b"], [["1", "2"]])
    for _ in range(2):
        put(page, "figures", rows)
        assert page.read_text() == f"before\n<!-- figures -->\n\n{rows}\n\n<!-- /figures -->\nafter\n"
    with pytest.raises(DataError, match="<!-- other -->"):
        put(page, "other", rows)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (sweep.sweep, ["--part", "3/2"], "1/2 for the first of two"),
        (sweep.sweep, ["--work", "none", "--draw", "."], "none does not contain a journal"),
        (sweep.sweep, ["--work", "file"], "part-1-of-1.jsonl cannot be written"),
        (decoders.compare, ["--work", "none", "--write", "README.md"], "is not finished"),
        (decoders.compare, ["--work", "none", "--task", "long", "--count", "1"], "Use at least 2"),
        (next_token.build, ["--out", "mine"], "mine contains other files than a model"),
        (control.build, ["--out", "evaluation"], "evaluation contains other files than a model"),
        (teacher.build, ["--out", "runs"], "one is inside the other"),
        (teacher.build, ["--out", "file/new"], "file is not a folder"),
        (teacher.build, ["--out", "new", "--work", "mine"], "mine already contains a run"),
        (teacher.build, ["--out", "mine"], "mine contains other files than a model"),
        (student.build, ["--out", "mine"], "mine contains other files than a model"),
        (student.build, ["--out", "new", "--teacher", "mine"], "mine does not contain a model"),
        (refresh.measure, ["--only", "("], "Use a regular expression"),
    ],
)
def test_an_error_that_a_user_can_fix_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "config.json").write_text('{"task": "embedded"}')
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        script(command)
    assert message in str(stopped.value) and str(stopped.value).startswith("Error: ")
    assert (tmp_path / "mine" / "notes").exists()
