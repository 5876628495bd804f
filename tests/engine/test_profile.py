"""A profile measures the time of each stage of a step, and does not change the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from d3mlx import batch_generate, engine, profiling
from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.engine import decode
from d3mlx.profiling import STAGES, Profile, profiled
from d3mlx.request import Step
from tests.fakes import END, MASK, TableModel, random_table
from tests.golden.cases import model as golden_model


def canvas_of() -> Canvas:
    return Canvas.for_prompt([1, 2, 3], 40, MASK, (END,))


def steps_of(preset: Any) -> list[Step]:
    return list(decode(TableModel(random_table(1, 43)), canvas_of(), preset.build("llada")))


@pytest.mark.parametrize("preset", [D3LLM(), Selective(), FastDLLM(threshold=0.5), Vanilla()])
def test_steps_are_the_same_with_and_without_a_profile(preset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"read": 0, "wait": 0}

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*arrays: Any) -> Any:
            calls[name] += 1
            return original(*arrays)

        monkeypatch.setattr(module, name, call)

    counted(engine, "read")
    counted(profiling, "wait")
    plain = steps_of(preset)
    assert calls == {"read": len(plain), "wait": 0}
    profile = Profile()
    with profiled(profile):
        seen = steps_of(preset)
    assert calls["read"] == 2 * len(plain)
    assert profile.steps == len(seen) == len(plain)
    for step, other in zip(plain, seen, strict=True):
        for name, value in vars(step).items():
            assert np.array_equal(value, getattr(other, name)), name


def test_the_stages_add_up_to_the_total_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: float(next(ticks)))
    profile = Profile()
    with profiled(profile):
        steps = steps_of(D3LLM())
    assert profile.seconds == dict.fromkeys(STAGES, float(len(steps)))
    assert profile.total == next(ticks) - 1


def test_the_stages_of_a_batch_add_up_to_the_total_time() -> None:
    ticks = iter(range(10_000))
    profile = Profile(lambda: float(next(ticks)))
    with profiled(profile):
        results = batch_generate(golden_model("llada"), None, [[1, 2, 3], [4, 5]], max_tokens=12)
    forwards = [result.stats.forwards for result in results]
    assert max(forwards) <= profile.steps < sum(forwards)
    assert profile.seconds == dict.fromkeys(STAGES, float(profile.steps))
    assert profile.total == next(ticks) - 1


def test_a_run_reports_to_the_profile_of_its_start() -> None:
    """The profile counts all steps of a run, including those after it is no longer current."""
    profile, other = Profile(), Profile()
    steps = decode(TableModel(random_table(1, 43)), canvas_of(), D3LLM().build("llada"))
    with profiled(profile):
        next(steps)
    with profiled(other):
        next(steps)
    count = 2 + len(list(steps))
    assert (profile.steps, other.steps, other.total) == (count, 0, 0.0)
    assert all(profile.seconds.values())


def test_a_profile_counts_only_the_runs_inside_it() -> None:
    outer, inner = Profile(), Profile()
    with profiled(outer):
        first = len(steps_of(D3LLM()))
        with profiled(inner):
            second = len(steps_of(FastDLLM()))
        with profiled(None):
            third = len(steps_of(D3LLM()))
    steps_of(D3LLM())
    assert (outer.steps, inner.steps) == (first + third, second)
