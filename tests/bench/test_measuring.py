"""Tests of measurements and their analysis, with a model without weights and a clock that tests set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from d3mlx import D3LLM, FastDLLM, generate
from d3mlx.bench import forwards
from d3mlx.bench.forwards import ROWS, measure_forwards
from d3mlx.bench.generation import Speaker, check_prompts, decode_all, prompts_of
from d3mlx.errors import ConfigError, DataError, PromptError
from d3mlx.profiling import Profile
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
