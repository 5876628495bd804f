"""Tests of recordings: trajectories match the steps, and a killed run neither loses nor repeats a prompt."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx import load
from d3mlx.cli.main import run
from d3mlx.distill.import_d3llm import published_trajectories
from d3mlx.distill.prompts import questions
from d3mlx.distill.recording import import_all, record_all, settings_of
from d3mlx.distill.trajectories import (
    Attempt,
    Question,
    RecordConfig,
    Teacher,
    Trajectory,
    is_correct,
    record,
    stated_answer,
)
from d3mlx.distill.trajectory_store import journal_line, read_store, write_shard, writing_to
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import locked
from d3mlx.request import Step
from tests.builders import write_dream, write_llada
from tests.fakes import END, TableModel, random_table

PROMPT = [1, 2, 3]


@pytest.fixture(scope="module")
def llada(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_llada(tmp_path_factory.mktemp("llada")))


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_dream(tmp_path_factory.mktemp("dream")))


@pytest.mark.parametrize("family", ["llada", "dream"])
@given(
    seed=st.integers(0, 10**6),
    new_tokens=st.integers(1, 40),
    block_size=st.integers(1, 12),
    cache=st.sampled_from(["none", "selective"]),
    early_stop=st.booleans(),
)
def test_ranks_reproduce_every_step(
    family: str, seed: int, new_tokens: int, block_size: int, cache: Any, early_stop: bool
) -> None:
    """Positions of a trajectory count from the end of the prompt, those of a Step from the start of the canvas."""
    model: Any = TableModel(random_table(seed, len(PROMPT) + new_tokens), family)
    config = RecordConfig(new_tokens, Teacher(block_size, cache), early_stop)
    attempt = Attempt.begin(model, None, Question(7, PROMPT), config, 0)
    assert attempt.generation.decoder == Teacher(block_size, cache).build(family)
    steps = []
    for step in attempt.generation:
        attempt.take(step)
        steps.append(step)
    trajectory, first = attempt.trajectory(False), len(PROMPT)
    assert (trajectory.row, trajectory.prompt.tolist(), trajectory.correct, trajectory.attempts) == (7, PROMPT, None, 1)
    assert trajectory.states == len(steps)
    last = {p: step.index for step in steps for p in changed_by(step)}
    shown: dict[int, int] = {}
    for step in steps:
        positions, tokens = trajectory.step(step.index)
        shown |= dict(zip((step.positions - first).tolist(), step.tokens.tolist(), strict=True))
        shown |= dict.fromkeys((step.filled - first).tolist(), END)
        # A position after the end of the answer may be committed before it is filled. Its rank is the last step.
        changed = changed_by(step)
        assert positions.tolist() == sorted(p for p in changed if last[p] == step.index)
        assert tokens.tolist() == [shown[p] for p in positions.tolist()]
        assert len(step.positions) == 1
        if family == "dream":
            block = (step.eligible - first) // block_size == (step.positions[0] - first) // block_size
            assert step.entropies[0] == step.guess_entropies[block].min()
    assert [shown[p] for p in range(new_tokens)] == trajectory.tokens.tolist()


def changed_by(step: Step) -> list[int]:
    """Return the positions that a step committed or filled, from the end of the prompt."""
    return [p - len(PROMPT) for p in [*step.positions.tolist(), *step.filled.tolist()]]


def test_wrong_answers_are_repeated_up_to_five_times(llada: Any) -> None:
    config = RecordConfig(max_tokens=4, check=True, seed=3)
    (wrong,) = record(*llada, [Question(0, PROMPT, "no such answer")], config)
    assert (wrong.correct, wrong.attempts) == (False, 5)
    (open_question,) = record(*llada, [Question(0, PROMPT)], config)
    assert (open_question.correct, open_question.attempts) == (None, 1)
    (unchecked,) = record(*llada, [Question(0, PROMPT, "x")], replace(config, check=False))
    assert (unchecked.correct, unchecked.attempts) == (None, 1)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_trajectory_does_not_depend_on_the_batch_size(
    family: str, early_stop: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions need different numbers of attempts, so they join and leave at different times."""
    monkeypatch.setattr("d3mlx.distill.trajectories.is_correct", lambda text, answer: sum(text.encode()) % 3 == 0)
    # The tiny models are so confident that only high temperatures change their answers.
    monkeypatch.setattr("d3mlx.distill.trajectories.TEMPERATURES", (0.0, 2.0, 4.0, 6.0, 8.0))
    teacher = request.getfixturevalue(family)
    config = RecordConfig(max_tokens=5, teacher=Teacher(3), early_stop=early_stop, check=True, seed=1)
    questions = [Question(row, [*PROMPT, *range(row)], None if row == 2 else "") for row in range(8)]
    runs = [list(record(*teacher, questions, config, size)) for size in (1, 3, 8)]
    assert [trajectory.row for trajectory in runs[0]] == list(range(8))
    assert len({trajectory.attempts for trajectory in runs[0]}) > 2
    assert [trajectory.correct for trajectory in runs[0]].count(None) == 1
    for trajectories in runs[1:]:
        trajectories.sort(key=lambda trajectory: trajectory.row)
        assert len(trajectories) == len(questions)
        assert all(same(a, b) for a, b in zip(runs[0], trajectories, strict=True))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{12} and then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("3 + 4 = 7. The answer is 007.", "7"),
        ("It costs $1,250.50.", "1250.5"),
        ("minus -3.0", "-3"),
        ("The answer is 1,234. That is a lot.", "1234"),
        ("The answer is 12.5", "12.5"),
        ("So the answer is 5 + 3 = 8.", "8"),
        ("The Answer is: 40 (20 of each).", "40"),
        ("It was 3. The answer is nothing.", "3"),
        ("nothing", None),
    ],
)
def test_stated_answers(text: str, answer: str | None) -> None:
    assert stated_answer(text) == (
        None if answer is None else answer.rstrip("0").rstrip(".") if "." in answer else answer
    )
    assert answer is None or is_correct(text, answer)


def questions_of(count: int) -> list[Question]:
    """Return questions with different prompts."""
    return [Question(i, [*PROMPT, i]) for i in range(count)]


def same(a: Trajectory, b: Trajectory) -> bool:
    """Return whether two trajectories are equal."""
    arrays = [(a.prompt, b.prompt), (a.tokens, b.tokens), (a.ranks, b.ranks)]
    return (a.row, a.correct, a.attempts) == (b.row, b.correct, b.attempts) and all(np.array_equal(*p) for p in arrays)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_killed_run_can_be_resumed(tmp_path: Path, llada: Any, after: int) -> None:
    config, settings = RecordConfig(max_tokens=4), settings_of(*llada, teacher="tiny")

    def kill(trajectory: Any, done: int, total: int) -> None:
        if done == after:
            raise KilledError

    def ignore(*_: Any) -> None:
        pass

    record_all(*llada, questions_of(7), config, tmp_path / "complete", settings, 3, ignore)
    with pytest.raises(KilledError):
        record_all(*llada, questions_of(7), config, tmp_path / "resumed", settings, 3, kill)
    journal = tmp_path / "resumed" / "journal-0.jsonl"
    if after % 3:
        with journal.open("a") as file:
            file.write('{"row": 6, "prompt": [1, 2')
    assert sorted(t.row for t in read_store(tmp_path / "resumed")) == list(range(after))
    record_all(*llada, questions_of(7), config, tmp_path / "resumed", settings, 3, ignore)
    complete, resumed = (sorted(read_store(tmp_path / name), key=lambda t: t.row) for name in ("complete", "resumed"))
    assert len(complete) == len(resumed) == 7
    assert all(same(a, b) for a, b in zip(complete, resumed, strict=True))
    assert complete[0].ranks.dtype == np.int16
    assert not journal.exists()
    with pytest.raises(ConfigError, match="max tokens"):
        record_all(*llada, questions_of(7), RecordConfig(max_tokens=5), tmp_path / "resumed", settings, 3, ignore)


def test_a_kill_between_shard_and_journal_repeats_no_prompt(tmp_path: Path, llada: Any) -> None:
    settings = settings_of(*llada, teacher="tiny")
    record_all(*llada, questions_of(2), RecordConfig(max_tokens=3), tmp_path, settings, 9, lambda *_: None)
    lines = [json.dumps(journal_line(trajectory)) + "\n" for trajectory in read_store(tmp_path)]
    (tmp_path / "journal-0.jsonl").write_text("".join(lines))
    assert [t.row for t in read_store(tmp_path)] == [0, 1]
    with writing_to(tmp_path):
        pass
    assert not (tmp_path / "journal-0.jsonl").exists()
    assert [t.row for t in read_store(tmp_path)] == [0, 1]
    assert len(list(tmp_path.glob("rows-*.safetensors"))) == 1


ROW = {"row": 2, "prompt": [1], "tokens": [4, 5], "ranks": [0, 1], "correct": None, "attempts": 1}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("journal-0.jsonl", "garbage\n", "line 1: not valid JSON"),
        *[
            ("journal-0.jsonl", json.dumps(ROW) + "\n" + json.dumps({**ROW, **wrong}) + "\n", f"line 2: .*{reason}")
            for wrong, reason in [
                ({"ranks": [0]}, "ranks"),
                ({"tokens": [4, 1.5]}, "tokens"),
                ({"tokens": [4, 2**40]}, "tokens"),
                ({"row": "3"}, "row"),
                ({"row": -1}, "row"),
                ({"attempts": None}, "attempts"),
            ]
        ],
        ("rows-00000000.jsonl", "{\n", "line 1: not valid JSON"),
        ("rows-00000000.jsonl", "[]\n", "line 1"),
        ("rows-00000000.jsonl", "", "disagree"),
        ("rows-00000000.safetensors", "", "truncated or damaged"),
        ("trajectories.json", "{", "damaged"),
        ("trajectories.json", "{}", "damaged"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    tmp_path: Path, llada: Any, file: str, content: str, reason: str
) -> None:
    settings, config = settings_of(*llada), RecordConfig(max_tokens=3)
    record_all(*llada, questions_of(2), config, tmp_path, settings, 9, lambda *_: None)
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=reason) as error:
        record_all(*llada, questions_of(3), config, tmp_path, settings, 9, lambda *_: None)
    assert str(tmp_path / file).split(".")[0] in str(error.value)
    assert (tmp_path / file).read_text() == content


def test_data_and_shards_of_a_folder_cannot_change(tmp_path: Path, llada: Any) -> None:
    def go(folder: Path, **marks: str) -> None:
        record_all(
            *llada,
            questions_of(2),
            RecordConfig(max_tokens=3),
            folder,
            settings_of(*llada, **marks),
            9,
            lambda *_: None,
        )

    go(tmp_path / "a", data="rows.jsonl", data_fingerprint="1")
    go(tmp_path / "a", data="moved.jsonl", data_fingerprint="1")
    with pytest.raises(ConfigError, match=r"trajectories with another data fingerprint \(1, not 2\)"):
        go(tmp_path / "a", data="rows.jsonl", data_fingerprint="2")
    with locked(tmp_path / "a"), pytest.raises(ConfigError, match="Another run is writing"):
        go(tmp_path / "a", data="rows.jsonl", data_fingerprint="1")
    before = (tmp_path / "a" / "rows-00000000.safetensors").read_bytes()
    with pytest.raises(DataError, match="already exists"):
        write_shard(tmp_path / "a", list(read_store(tmp_path / "a")))
    assert (tmp_path / "a" / "rows-00000000.safetensors").read_bytes() == before


def test_a_limit_below_the_recorded_number_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    messages = []
    for limit in (3, 2, 3):
        arguments = ["trajectories", str(tmp_path / "out"), "--max-tokens", "4", "--limit", str(limit)]
        monkeypatch.setattr("sys.argv", ["d3mlx", *arguments])
        with pytest.raises(SystemExit) as end:
            run()
        assert not end.value.code
        messages.append(capfd.readouterr().err.splitlines()[-1])
    plain = f"3 trajectories in {tmp_path / 'out'}"
    assert messages == [f"{plain}.", f"{plain}. --limit 2 does not remove those of earlier runs.", f"{plain}."]


def test_an_import_with_an_invalid_row_writes_nothing(tmp_path: Path, llada: Any) -> None:
    source = tmp_path / "rows.jsonl"
    valid = published_row([5, 6], [10, 11], [1, 0], llada[0].args.mask_token_id)
    source.write_text(json.dumps(valid) + "\n" + json.dumps({"prompt": "x"}) + "\n")
    with pytest.raises(DataError, match="record 2: the record has no trajectory"):
        import_all(source, *llada, False, tmp_path / "out", settings_of(*llada), 9, lambda *_: None)
    assert not (tmp_path / "out").exists()
    source.write_text(json.dumps(valid) + "\n")
    import_all(source, *llada, False, tmp_path / "out", settings_of(*llada), 9, lambda *_: None)
    assert len(list(read_store(tmp_path / "out"))) == 1


def published_row(prompt: list[int], tokens: list[int], order: list[int], mask_id: int) -> dict[str, Any]:
    """Return a published row for a decode that commits positions in `order`."""
    states = []
    shown = [mask_id] * len(tokens)
    for position in order:
        shown[position] = tokens[position]
        states.append([*prompt, *shown])
    return {"idx": 0, "question": "hi", "prompt_ids": [prompt], "trajectory": states, "is_correct": True}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_published_layout(tmp_path: Path, dream: Any, kind: str) -> None:
    """Positions count from the row's own prompt. The prompt for training is the question in the chat template."""
    model, tokenizer = dream
    row = published_row([5, 6], [10, 11, 12, 13], [2, 0, 3, 1], model.args.mask_token_id)
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    elif importlib.util.find_spec("pyarrow") is None:
        path.write_bytes(b"PAR1")
        with pytest.raises(DataError, match="pip install pyarrow"):
            list(published_trajectories(path, model, tokenizer, raw=False))
        return
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    (trajectory,) = published_trajectories(path, model, tokenizer, raw=False)
    assert (trajectory.tokens.tolist(), trajectory.ranks.tolist(), trajectory.correct) == (
        [10, 11, 12, 13],
        [1, 3, 0, 2],
        True,
    )
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, return_dict=False
    )
    assert trajectory.prompt.tolist() == chat


def changed_row(**changes: Any) -> dict[str, Any]:
    """Return a published row with changes."""
    return {**published_row([5, 6], [10, 11], [1, 0], 260), **changes}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (changed_row(trajectory=[]), "no trajectory"),
        (changed_row(prompt_ids=[]), "no prompt_ids"),
        (changed_row(trajectory=[[5, 6, 10], [5, 6]]), "the same length"),
        (changed_row(prompt_ids=[7, 7]), "do not begin with"),
        (changed_row(trajectory=[[5, 6, 260, 11]]), "the last state contains mask"),
        (changed_row(trajectory=[[5, 6, 10, 9999]]), "another tokenizer"),
    ],
)
def test_invalid_published_rows_are_refused_in_one_sentence(
    tmp_path: Path, dream: Any, row: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(changed_row()) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=reason) as error:
        list(published_trajectories(path, *dream, raw=False))
    assert "record 2" in str(error.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "the record is empty"),
        ('{"prompt": " "}', "no prompt text"),
        ('{"messages": [{"role": "user"}]}', "a role and a content"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "must be from the user"),
        (json.dumps({"prompt": "x" * 600}), "exceed the model's context"),
        ('{"prompt": "<|mdm_mask|>"}', "contains the mask token"),
    ],
)
def test_invalid_prompts_are_refused_in_one_sentence(tmp_path: Path, llada: Any, line: str, reason: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=reason) as error:
        questions(str(path), *llada, 8, False, None)
    assert f"{path}, record 3" in str(error.value)
    assert "\n" not in str(error.value)
