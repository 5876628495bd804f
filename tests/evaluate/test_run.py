"""Tests of runs: records, resume, folders with other settings, comparison."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from d3mlx import D3LLM, Sampling, generate, load
from d3mlx.data.stories.problem import is_correct
from d3mlx.data.stories.stories import problem
from d3mlx.errors import ConfigError, DataError, PromptError
from d3mlx.evaluate.records import Folder, Record, Setting, read_points, read_records, score
from d3mlx.evaluate.results import (
    OperatingPoint,
    Run,
    area,
    difference,
    different_settings,
    on_common_problems,
    picture,
    read_run,
    read_runs,
    summary,
)
from d3mlx.evaluate.run import EvalModel, attempt, run_point, solve
from d3mlx.evaluate.tasks import Ask, Verdict
from d3mlx.files import append, fingerprint, write_text
from d3mlx.research.builds.shipped import measure
from tests.builders import write_llada

SETTING = Setting("threshold", 0.5)
CONFIG = {"task": "echo", "model": "tiny", "versions": {"mlx": "1"}}


class Echo:
    """A task with meaningless problems that are judged by their index."""

    name = "echo"
    size: int | None = None
    stop: tuple[str, ...] = ()

    def ask(self, index: int) -> Ask:
        return Ask(f"Problem {index}", chat=index % 2 == 0)

    def score(self, index: int, text: str) -> Verdict:
        return Verdict(index % 3 == 0, str(len(text)), strict=index % 6 == 0)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> EvalModel:
    return EvalModel(*load(str(write_llada(tmp_path_factory.mktemp("llada")))), Sampling(1.0, seed=7), 12)


@contextmanager
def opened(path: Path, config: dict[str, Any] = CONFIG) -> Iterator[Folder]:
    with Folder(path).opened(config) as folder:
        yield folder


def run(subject: EvalModel, path: Path, count: int, stop_after: int | None = None) -> OperatingPoint:
    """Return the point of a run, interrupted after `stop_after` records."""
    seen: list[Record] = []

    def watch(record: Record) -> None:
        seen.append(record)
        if len(seen) == stop_after:
            raise KeyboardInterrupt

    with opened(path) as folder:
        point = run_point(subject, Echo(), D3LLM(), folder, SETTING, count, watch)
    assert [record.index for record in seen] == list(range(count))
    return point


def test_a_record_has_the_result_of_generate(subject: EvalModel) -> None:
    for index in (0, 1):
        record = attempt(subject, Echo(), D3LLM(), index)
        text = f"Problem {index}"
        prompt: Any = text if index else [{"role": "user", "content": text}]
        sampling = Sampling(1.0, seed=7 + index)
        result = generate(subject.model, subject.tokenizer, prompt, D3LLM(), max_tokens=12, sampling=sampling)
        stats = result.stats
        assert record.text == result.text
        assert (record.tokens, record.forwards, record.rows) == (stats.tokens, stats.forwards, stats.rows)
        assert (record.prefill_rows, record.prompt_tokens) == (stats.prefill_rows, stats.prefill_rows)
        assert (record.seed, record.answer) == (7 + index, str(len(result.text)))


def test_an_answer_may_begin_with_given_words(subject: EvalModel) -> None:
    prompt = Ask("Q", chat=True, opening="Well,").prompt(subject.tokenizer)
    assert isinstance(prompt, str)
    chat = subject.tokenizer.apply_chat_template([{"role": "user", "content": "Q"}], add_generation_prompt=True)
    ids = chat if isinstance(chat, list) else chat["input_ids"]
    assert prompt.endswith("Well,")
    assert subject.tokenizer.encode(prompt, add_special_tokens=False)[: len(ids)] == list(ids)


def test_a_model_without_a_chat_template_needs_plain_text() -> None:
    tokenizer = SimpleNamespace(chat_template=None)
    assert Ask("Q", chat=False, opening=" A").prompt(tokenizer) == "Q A"
    with pytest.raises(ConfigError, match="--no-apply-chat-template"):
        Ask("Q", chat=True).prompt(tokenizer)


def test_measure_returns_the_totals_of_generate() -> None:
    model, tokenizer = load()
    totals = measure(model, tokenizer, D3LLM(), 1)
    first = problem(0, "held-out")
    result = generate(model, tokenizer, [{"role": "user", "content": first.question}], D3LLM(), max_tokens=64)
    assert (totals.problems, totals.correct) == (1, is_correct(first, result.text))
    for name in ("tokens", "forwards", "rows", "prefill_rows"):
        assert getattr(totals, name) == getattr(result.stats, name)


def test_tokens_after_a_stop_text_do_not_count(subject: EvalModel) -> None:
    complete = attempt(replace(subject, max_tokens=40), Echo(), D3LLM(), 1)
    cut = Echo()
    middle = len(complete.text) // 2
    cut.stop = (complete.text[middle : middle + 2],)
    record = attempt(replace(subject, max_tokens=40), cut, D3LLM(), 1)
    assert record.text == complete.text[: complete.text.index(cut.stop[0])]
    assert 0 < record.tokens < complete.tokens
    assert record.tokens == len(subject.tokenizer.encode(record.text, add_special_tokens=False))


def test_an_interrupted_run_can_be_resumed(subject: EvalModel, tmp_path: Path) -> None:
    complete = run(subject, tmp_path / "complete", 6)
    with pytest.raises(KeyboardInterrupt):
        run(subject, tmp_path / "cut", 6, stop_after=3)
    file = tmp_path / "cut" / "threshold-0.5.jsonl"
    assert file.read_bytes().count(b"\n") == 3
    file.write_bytes(file.read_bytes()[:-20])
    assert [record.index for record in read_records(file)] == [0, 1]
    assert run(subject, tmp_path / "cut", 6) == complete
    expected = (tmp_path / "complete" / file.name).read_bytes()
    assert file.read_bytes() == expected
    # No problem is solved twice. A run can have fewer problems, or continue with more.
    assert len(run(subject, tmp_path / "cut", 4).records) == 4
    assert file.read_bytes() == expected
    assert len(run(subject, tmp_path / "cut", 7).records) == 7
    assert file.read_bytes().startswith(expected)


@pytest.mark.parametrize("stop_after", [1, 5])
def test_records_do_not_depend_on_the_batch_size(subject: EvalModel, tmp_path: Path, stop_after: int) -> None:
    """Problems need different numbers of forwards, so they do not finish in order. A run can resume with another batch
    size."""
    subject, task, preset = replace(subject, max_tokens=24), Echo(), D3LLM(threshold=1.0, block_size=8)
    task.stop = ("t",)
    alone = list(solve(replace(subject, batch_size=1), task, preset, range(8)))
    assert [record.index for record in alone] == list(range(8))
    orders = []
    for size in (3, 5, 8):
        together = list(solve(replace(subject, batch_size=size), task, preset, range(8)))
        orders.append([record.index for record in together])
        assert sorted(together, key=lambda record: record.index) == alone
    assert any(order != list(range(8)) for order in orders)

    def interrupt(record: Record) -> None:
        finished.append(record)
        if len(finished) == stop_after:
            raise KeyboardInterrupt

    finished: list[Record] = []
    with opened(tmp_path) as folder:
        with pytest.raises(KeyboardInterrupt):
            run_point(replace(subject, batch_size=5), task, preset, folder, SETTING, 8, interrupt)
        assert sorted(record.index for record in folder.log(SETTING).read().records) == sorted(
            record.index for record in finished
        )
        seen: list[Record] = []
        point = run_point(replace(subject, batch_size=3), task, preset, folder, SETTING, 8, seen.append)
    assert list(point.records) == alone
    # Stored records are reported first, in order, and their problems are not solved again.
    assert seen[:stop_after] == sorted(finished, key=lambda record: record.index)
    assert sorted(seen, key=lambda record: record.index) == alone
    lines = (tmp_path / "threshold-0.5.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines[:stop_after]] == [asdict(record) for record in finished]
    assert len(lines) == 8


def test_a_folder_refuses_other_settings_and_other_files(subject: EvalModel, tmp_path: Path) -> None:
    with opened(tmp_path / "run"):
        pass
    with opened(tmp_path / "run", {**CONFIG, "versions": {"mlx": "2"}}):
        pass
    with pytest.raises(ConfigError, match=r"another model \(tiny, not large\); choose another --out"):
        opened(tmp_path / "run", {**CONFIG, "model": "large"}).__enter__()
    with pytest.raises(ConfigError, match="another seed"):
        opened(tmp_path / "run", {**CONFIG, "seed": 3}).__enter__()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "train.jsonl").write_text("{}\n")
    model = write_llada(tmp_path / "model")
    for foreign in (tmp_path / "foreign", model):
        before = sorted(foreign.iterdir())
        with pytest.raises(ConfigError, match="contains other files"):
            opened(foreign).__enter__()
        assert sorted(foreign.iterdir()) == before
    with opened(tmp_path / "run"), pytest.raises(ConfigError, match="Another run is writing"):
        opened(tmp_path / "run").__enter__()


@pytest.mark.parametrize("damage", ["not json\n", "[]\n", '{"index": 0}\n', "\n", "[" * 10**5 + "\n"])
def test_a_damaged_line_is_named(subject: EvalModel, tmp_path: Path, damage: str) -> None:
    run(subject, tmp_path, 2)
    file = tmp_path / "threshold-0.5.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + damage + lines[1])
    with pytest.raises(DataError, match=r"threshold-0\.5\.jsonl, line 2"):
        read_run(tmp_path)
    file.write_text(lines[0] + lines[0])
    with pytest.raises(DataError, match="line 2: problem 0 appears twice"):
        read_run(tmp_path)


def test_folders_without_an_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not an evaluation"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="has no task"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text('{"task": "echo"}')
    with pytest.raises(DataError, match="no answers yet"):
        read_run(tmp_path)
    (tmp_path / "other.jsonl").write_text("")
    with pytest.raises(DataError, match=r"other\.jsonl is not an evaluation result"):
        read_run(tmp_path)


@pytest.mark.parametrize("value", [0.1, 1e-5, 1.0, 0.30000000000000004])
def test_settings_can_be_read_from_file_names(value: float) -> None:
    for setting in (Setting("threshold", value), Setting("steps", 32), Setting()):
        assert Setting.named(setting.name) == setting


def test_a_problem_that_does_not_fit_is_named(subject: EvalModel) -> None:
    long = Echo()
    long.ask = lambda index: Ask("x" * 600, chat=False)  # type: ignore[method-assign]
    with pytest.raises(PromptError, match=r"Problem 4 of echo: .*context of 512"):
        list(solve(subject, long, D3LLM(), [4]))


def test_totals(subject: EvalModel, tmp_path: Path) -> None:
    point = run(subject, tmp_path, 7)
    totals = point.score
    assert (totals.problems, totals.correct, totals.strict) == (7, 3, 2)
    assert totals.accuracy == 3 / 7
    assert totals.tokens_per_forward == sum(r.tokens for r in point.records) / sum(r.forwards for r in point.records)
    assert totals.rows_per_token == sum(r.rows for r in point.records) / sum(r.tokens for r in point.records)
    assert score([]).rows_per_token == float("inf")
    again = read_run(tmp_path)
    assert [r.name for r in read_runs([tmp_path, tmp_path])] == [str(tmp_path)] * 2
    assert [r.name for r in read_runs([tmp_path])] == [tmp_path.name]
    assert again.points == [point]
    assert read_points(tmp_path)[0] == CONFIG
    json.dumps(summary(again, area(again, 80)), allow_nan=False)


def record(index: int, correct: bool, tokens: int = 10) -> Record:
    return Record(index, correct, None, "", None, 0, 5, tokens, 5, 100, 5, "")


def run_of(name: str, *points: list[Record], task: str = "echo") -> Run:
    """Return a run with one point per list of records."""
    return Run(
        name, {"task": task}, [OperatingPoint(Setting("steps", i), list(records)) for i, records in enumerate(points)]
    )


def test_runs_are_compared_on_common_problems() -> None:
    first = run_of("first", [record(i, i < 5) for i in range(8)])
    second = run_of("second", [record(i, True, 20) for i in range(2, 12)])
    common_first, common_second = on_common_problems([first, second])
    assert [point.score.problems for r in (common_first, common_second) for point in r.points] == [6, 6]
    change = difference(common_first.points[0], common_second.points[0])
    assert (change.count, change.gained, change.lost) == (6, 3, 0)
    with pytest.raises(ConfigError, match="no problem in common"):
        on_common_problems([first, run_of("other", [record(20, True)])])
    with pytest.raises(ConfigError, match="tasks or data differ"):
        on_common_problems([first, run_of("other", [record(0, True)], task="math")])
    runs = [Run(str(shots), {"num_fewshot": shots, "model": str(shots)}, ()) for shots in (0, 0, 5)]
    assert different_settings(runs[:2]) == [] and different_settings(runs) == ["num_fewshot"]


def test_the_area_of_a_run_uses_percent() -> None:
    solved = run_of("run", [record(i, i < 8) for i in range(10)], [record(i, i < 8, 20) for i in range(10)])
    assert area(solved, solved.best).value == pytest.approx(2 * 80 + (4 - 2) * 80)
    worse = run_of("run", [record(i, i < 8) for i in range(10)], [record(i, i < 5, 20) for i in range(10)])
    assert area(worse, 80).value is None
    assert "AUP is not defined" in str(area(worse, 80).why)
    assert area(run_of("none", [record(0, False)]), 0.0).why == "No AUP: no answer is correct."


def test_the_picture_is_xml_with_a_curve_per_run() -> None:
    from xml.etree import ElementTree

    runs = [
        run_of("<a & b>", [record(i, i < 8) for i in range(10)]),
        run_of("c", [record(0, True)], [record(0, False, 30)]),
    ]
    areas = [area(r, 90) for r in runs]
    for x, name in (("tpf", "tokens per forward"), ("rpt", "rows per token")):
        root = ElementTree.fromstring(picture(runs, areas, x))  # type: ignore[arg-type]
        texts = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
        assert name in texts
        assert "accuracy (%)" in texts
        assert any(text.startswith("<a & b>") for text in texts)
        # There are three points and two entries of the legend.
        marks = [*root.iter("{http://www.w3.org/2000/svg}circle"), *root.iter("{http://www.w3.org/2000/svg}polygon")]
        assert len(marks) == 5
    with pytest.raises(ConfigError, match="Cannot plot"):
        picture([run_of("empty", [record(0, False, 0)])], [area(runs[0], 90)], "tpf")


@pytest.mark.parametrize("read_bytes", [1 << 20, 0])
def test_fingerprints_of_different_models_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr("d3mlx.files.READ_WHOLE", read_bytes)
    first, second = write_llada(tmp_path / "a"), write_llada(tmp_path / "b")
    assert fingerprint(first) == fingerprint(second)
    weights = second / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(None) is None
    config = first / "config.json"
    before = fingerprint(first)
    config.write_text(config.read_text().replace('"rope_theta": ', '"rope_theta": 3'))
    assert fingerprint(first) != before


def test_text_can_be_written_to_devices_and_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "one"
    write_text(Path("/dev/null"), "two")
    assert Path("/dev/null").is_char_device()
    read, write = os.pipe()
    write_text(Path(f"/dev/fd/{write}"), "three")
    assert os.read(read, 10) == b"three"
    for end in (read, write):
        os.close(end)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "x" * 300):
        with pytest.raises(ConfigError, match="cannot be written"):
            write_text(tmp_path / name, "four")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_reported_in_one_sentence() -> None:
    with Path("/dev/full").open("wb") as file, pytest.raises(ConfigError, match=r"No space left on device\. Make"):
        append(file, Path("answers"), b"line\n")


def test_records_and_names_with_impossible_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "default.jsonl"
    for tokens in (-1, 10**400):
        path.write_text(json.dumps(asdict(record(0, True)) | {"tokens": tokens}) + "\n")
        with pytest.raises(DataError, match="line 1"):
            read_records(path)
    for name in ("threshold-0.50", "threshold-nan", "-0.5"):
        with pytest.raises(ValueError, match="not the name"):
            Setting.named(name)
