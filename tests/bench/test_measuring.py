"""Tests of measurements and their analysis, with a model without weights and a clock that tests set."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3mlx import D3LLM, FastDLLM, generate, tuning
from d3mlx.bench import forwards
from d3mlx.bench.forwards import ROWS, measure_forwards
from d3mlx.bench.generation import Speaker, check_prompts, decode_all, prompts_of
from d3mlx.bench.shapes import Sizes, skeleton
from d3mlx.errors import ConfigError, DataError, PromptError
from d3mlx.profiling import Profile
from d3mlx.tuning import best_padding, cache_file, save_padding, shape_key
from tests.fakes import TableModel, random_table


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_timed_forward_computes_its_number_of_rows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "timed", lambda act: float(act() is None))
    monkeypatch.setattr(forwards.time, "perf_counter", iter([0.0, 1e6]).__next__)
    model = TableModel(random_table(0, 64), family)
    result = measure_forwards(model, 64, ROWS, 1e3)
    assert [step.rows for step in result.steps] == [count for count in ROWS if count <= 64]
    assert (result.prefill.rows, result.left_out) == (64, ())
    assert all(step.repeats == 1 for step in (*result.steps, result.prefill))
    # Each count runs once to warm up and once to be timed, at positions spread over the context.
    expected = [64, 64, *(count for step in result.steps for count in (step.rows, step.rows))]
    assert [len(call) for call in model.calls] == expected
    for call in model.calls:
        assert len(set(call)) == len(call)
        assert call[0] == 0
        assert len(call) == 1 or call[-1] >= 64 - 64 // len(call) - 1


def test_remaining_time_is_used_for_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(np.arange(0, 10_000, 0.5).tolist())
    monkeypatch.setattr(forwards.time, "perf_counter", lambda: next(seconds))
    result = measure_forwards(TableModel(random_table(0, 32)), 32, [8, 1, 8], 30)
    repeats = [result.prefill.repeats, *(step.repeats for step in result.steps)]
    assert [step.rows for step in result.steps] == [1, 8]
    assert min(repeats) > 3
    assert max(repeats) - min(repeats) <= 1
    assert result.prefill_speed == 32 / 0.5


def test_slow_row_counts_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([64, 8, 9, 8, 10, 11])

    def slow(act: Callable[[], None]) -> float:
        act()
        return float(next(counts))

    monkeypatch.setattr(forwards, "timed", slow)
    monkeypatch.setattr(forwards.time, "perf_counter", iter([0.0, 100.0]).__next__)
    result = measure_forwards(TableModel(random_table(0, 64)), 64, [1, 8, 16, 32, 64], 20.0)
    assert [step.seconds for step in result.steps] == [9, 10, 11]
    assert (result.prefill.seconds, result.left_out) == (64, (32, 64))


@pytest.mark.parametrize(
    ("context", "rows", "seconds", "name"),
    [
        (0, [1], 1, "context"),
        (8, [0], 1, "row-counts"),
        (8, [9], 1, "row-counts"),
        (8, [1], 0, "seconds"),
        (8, [1], np.nan, "sec"),
    ],
)
def test_invalid_settings_are_refused(context: int, rows: list[int], seconds: float, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        measure_forwards(TableModel(random_table(0, 8)), context, rows, seconds)


# --- stored paddings

ARGS = skeleton(Sizes("llada", 2, 64, 4, 2, 128, 100)).args
OTHER = skeleton(Sizes("dream", 2, 64, 4, 2, 128, 100)).args


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("D3MLX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_padding_is_stored_per_device_and_shape(folder: Path) -> None:
    assert best_padding(ARGS, "Apple M4 Max") == 32
    assert not folder.exists()
    assert save_padding(ARGS, "Apple M4 Max", 16, "4-bit") == folder / "bench.json"
    save_padding(OTHER, "Apple M4 Max", 64, "bfloat16")
    save_padding(ARGS, "Apple M1", 8, "4-bit")
    assert best_padding(ARGS, "Apple M4 Max") == 16
    assert best_padding(OTHER, "Apple M4 Max") == 64
    assert best_padding(ARGS, "Apple M1") == 8
    assert best_padding(OTHER, "Apple M1") == 32
    save_padding(ARGS, "Apple M1", 64, "8-bit")
    assert best_padding(ARGS, "Apple M1") == 64
    assert [file.name for file in folder.iterdir()] == ["bench.json"]


def test_the_path_of_the_padding_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("D3MLX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/mia")
    assert cache_file() == Path("/home/mia/.cache/d3mlx/bench.json")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_file() == Path("/var/cache/d3mlx/bench.json")
    monkeypatch.setenv("D3MLX_CACHE", "~/mine")
    assert cache_file() == Path("/home/mia/mine/bench.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
DAMAGE = st.one_of(
    st.binary(max_size=20),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps({"M1": value}).encode()),
    JSON.map(lambda value: json.dumps({"M1": {shape_key(ARGS): value}}).encode()),
    JSON.map(lambda value: json.dumps({"M1": {shape_key(ARGS): {"padding": value}}}).encode()),
    st.just(b"[" * 100_000),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_a_damaged_file_counts_as_missing(folder: Path, damage: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_bytes(damage)
    try:
        stored = json.loads(damage)["M1"][shape_key(ARGS)]["padding"]
    except Exception:
        stored = None
    valid = type(stored) is int and 1 <= stored <= tuning.MOST_PADDING
    assert best_padding(ARGS, "M1") == (stored if valid else 32)
    save_padding(ARGS, "M1", 16, "4-bit")
    assert best_padding(ARGS, "M1") == 16


def test_an_unreadable_file_counts_as_missing(folder: Path) -> None:
    (folder / "bench.json").mkdir(parents=True)
    assert best_padding(ARGS, "M1") == 32
    with pytest.raises(ConfigError, match=r"bench\.json"):
        save_padding(ARGS, "M1", 16, "4-bit")
    assert [file.name for file in folder.iterdir()] == ["bench.json"]


def test_simultaneous_results_are_all_stored(folder: Path) -> None:
    threads = [threading.Thread(target=save_padding, args=(ARGS, f"M{i}", i, "4-bit")) for i in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [best_padding(ARGS, f"M{i}") for i in range(1, 13)] == list(range(1, 13))


# --- whole answers

TOKENIZER: Any = SimpleNamespace(chat_template=None)


class Words(TableModel):
    """A model whose prompts are ids, so it needs no tokenizer."""

    def __init__(self) -> None:
        super().__init__(random_table(3, 64))
        self.args.max_new_tokens = 24


def test_totals_are_those_of_the_runs() -> None:
    model = Words()
    presets = {"d3llm": D3LLM(), "fast": FastDLLM(threshold=0.5)}
    prompts = [[1, 2, 3], [4, 5]]
    profiles = {name: Profile() for name in presets}
    speaker = Speaker(model, None, 24)
    check_prompts(speaker, prompts, presets)
    totals = decode_all(speaker, prompts, presets, 1e9, profiles)
    for name, preset in presets.items():
        runs = [generate(model, None, prompt, preset, max_tokens=24).stats for prompt in prompts]
        total = totals[name]
        assert (total.prompts, total.prompt_tokens) == (2, 5)
        assert total.tokens == sum(run.tokens for run in runs)
        assert total.forwards == sum(run.forwards for run in runs) == profiles[name].steps
        assert total.rows == sum(run.rows for run in runs)
        assert total.figures()["tokens_per_forward"] == total.tokens / total.forwards
        assert 0 < profiles[name].total <= total.seconds
    assert decode_all(speaker, prompts, presets, 1e-9)["fast"].prompts == 1


def test_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "One?"}\n{"question": "Two?", "answer": "2"}\n')
    assert prompts_of(file, TOKENIZER) == ["One?", "Two?"]
    chat: Any = SimpleNamespace(chat_template="...")
    assert prompts_of(file, chat)[1] == [{"role": "user", "content": "Two?"}]
    assert len({str(prompt) for prompt in prompts_of(None, chat)}) > 90
    file.write_text('{"text": "One?"}\n')
    with pytest.raises(DataError, match="record 1"):
        prompts_of(file, TOKENIZER)
    with pytest.raises(PromptError, match="99"):
        check_prompts(Speaker(Words(), None, 8), [[1], [99]], {"d3llm": D3LLM()})
