"""Decoders side by side: kept answers, parts, and what goes into the README."""

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
from d3mlx.evaluate.tasks.embedded import Embedded
from d3mlx.files import lock_file
from d3mlx.research.builds import control, next_token, pairs, student, teacher
from d3mlx.research.experiments import decoders, refresh, sweep
from d3mlx.research.experiments.journal import Part, keep, measure, read
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.script import script

ABOUT = {"model": "the embedded one"}


@pytest.fixture(scope="module")
def subject() -> EvalModel:
    return EvalModel(*load(EMBEDDED), max_tokens=8)


def test_a_cut_off_measurement_goes_on_and_parts_add_up(tmp_path: Path, subject: EvalModel) -> None:
    presets = {"exact": D3LLM("none"), "needed": Selective()}
    task = Embedded(TaskOptions(), "llada")
    for number in (1, 2):
        part = Part.named(f"{number}/2")
        measure(subject, task, presets, part.of(range(3)), tmp_path / part.file, ABOUT)
    path = tmp_path / "part-1-of-2.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    measure(subject, task, presets, (0, 2), path, ABOUT)
    about, found = read(tmp_path)
    assert about.items() >= ABOUT.items() and "SelectiveCache(" in about["decoders"]["needed"]
    assert {name: sorted(answers.records) for name, answers in found.items()} == {
        "exact": [0, 1, 2],
        "needed": [0, 1, 2],
    }
    unharmed = len(whole.splitlines()) - 1
    assert path.read_bytes().splitlines()[:unharmed] == whole.splitlines()[:unharmed]
    for answers in found.values():
        assert answers.score.problems == 3 and answers.seconds_per_problem > 0
        assert answers.against(found["exact"]).count == 3
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
    head, *lines = whole.splitlines(keepends=True)
    spoilt = [
        [head.replace(b"{", b"["), *lines],
        [b"null\n", *lines],
        [head, lines[0].replace(b'"tokens": ', b'"tokens": null, "t": '), *lines[1:]],
        [head, lines[0].replace(b'"index": ', b'"index": "a", "i": '), *lines[1:]],
        [head, b"[" * 100_000 + b"\n"],
    ]
    for content in spoilt:
        path.write_bytes(b"".join(content))
        with pytest.raises(
            DataError, match=r"line \d: (not the settings|not valid JSON|not a record).*; remove the file"
        ):
            read(tmp_path)


def test_what_fails_while_solving_is_no_matter_of_the_file(tmp_path: Path) -> None:
    def fail(index: int) -> Record:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        keep({"one": fail}, (0,), tmp_path / Part().file, ABOUT)


def test_tables_need_every_answer(tmp_path: Path, subject: EvalModel) -> None:
    path = tmp_path / Part().file
    measure(subject, Embedded(TaskOptions(), "llada"), {"needed": Selective()}, (0,), path, ABOUT)
    assert decoders.whole(tmp_path, ["needed"], range(1))["needed"].score.problems == 1
    for names, problems in ((["needed", "exact"], range(1)), (["needed"], range(2))):
        with pytest.raises(DataError, match="not finished"):
            decoders.whole(tmp_path, names, problems)


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/" + "9" * 5000])
def test_a_part_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="1/2"):
        Part.named(text)


def test_the_front_holds_what_nothing_beats(tmp_path: Path, subject: EvalModel) -> None:
    presets = {f"blocks of {size}, once": Selective(block_size=size) for size in (4, 8)}
    measure(
        subject,
        Embedded(TaskOptions(), "llada", "validation"),
        presets,
        (0, 1),
        tmp_path / "part-1-of-1.jsonl",
        ABOUT,
    )
    _, found = read(tmp_path)
    for axis, (words, cost) in sweep.AXES.items():
        best = sweep.front(found, cost)
        costs, shares = [cost(found[name]) for name in best], [found[name].score.accuracy for name in best]
        assert costs == sorted(costs) and shares == sorted(set(shares))
        assert words in sweep.picture(found, axis)


def test_generated_text_stands_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    rows = table(["a", "b"], [["1", "2"]])
    for _ in range(2):
        put(readme, "figures", rows)
        assert readme.read_text() == f"before\n<!-- figures -->\n\n{rows}\n\n<!-- /figures -->\nafter\n"
    with pytest.raises(DataError, match="<!-- other -->"):
        put(readme, "other", rows)


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (sweep.sweep, ["--part", "3/2"], "1/2, the first of two"),
        (sweep.sweep, ["--work", "none", "--draw", "."], "none holds no journal"),
        (sweep.sweep, ["--work", "file"], "part-1-of-1.jsonl cannot be written"),
        (decoders.compare, ["--work", "none", "--write", "README.md"], "is not finished"),
        (decoders.compare, ["--work", "none", "--task", "long", "--count", "1"], "asks 2 problems at once"),
        (next_token.build, ["--out", "mine"], "mine holds other files than a model"),
        (control.build, ["--out", "evaluation"], "evaluation holds other files than a model"),
        (pairs.build, ["--out", "runs"], "lies in the other"),
        (pairs.build, ["--out", "file/new"], "file is no folder"),
        (pairs.build, ["--out", "new", "--work", "mine"], "mine holds a run already"),
        (teacher.build, ["--out", "mine"], "mine holds other files than a model"),
        (student.build, ["--out", "mine"], "mine holds other files than a model"),
        (student.build, ["--out", "new", "--teacher", "mine"], "mine holds no model"),
        (refresh.measure, ["--only", "("], "no regular expression"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, arguments: list[str], says: str
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
    assert says in str(stopped.value) and str(stopped.value).startswith("Error: ")
    assert (tmp_path / "mine" / "notes").exists()
