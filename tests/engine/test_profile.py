"""A profile sees where the time of a step goes, and changes nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from d3mlx import engine, stages
from d3mlx.canvas import Canvas
from d3mlx.decoding.presets import D3LLM, D3MLX, FastDLLM, Vanilla
from d3mlx.engine import Step, decode
from d3mlx.stages import STAGES, Profile, profiled
from tests.fakes import END, MASK, TableModel, random_table


def steps_of(preset: Any) -> list[Step]:
    canvas = Canvas([1, 2, 3], 40, MASK, (END,))
    return list(decode(TableModel(random_table(1, 43)), canvas, preset.build("llada")))


@pytest.mark.parametrize("preset", [D3LLM(), D3MLX(), FastDLLM(threshold=0.5), Vanilla()])
def test_the_same_steps_with_and_without(preset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"read": 0, "wait": 0}

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(arrays: Any) -> Any:
            calls[name] += 1
            return original(arrays)

        monkeypatch.setattr(module, name, call)

    counted(engine, "read")
    counted(stages, "wait")
    plain = steps_of(preset)
    assert calls == {"read": len(plain), "wait": 0}
    profile = Profile()
    with profiled(profile):
        seen = steps_of(preset)
    assert calls["read"] == 2 * len(plain)
    assert profile.steps == len(seen) == len(plain)
    for one, other in zip(plain, seen, strict=True):
        for name, value in vars(one).items():
            assert np.array_equal(value, getattr(other, name)), name


def test_the_stages_share_out_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(stages.time, "perf_counter", lambda: float(next(ticks)))
    profile = Profile()
    with profiled(profile):
        steps = steps_of(D3LLM())
    assert profile.seconds == dict.fromkeys(STAGES, float(len(steps)))
    assert profile.total == next(ticks) - 1


def test_a_profile_hears_the_runs_inside_it_only() -> None:
    outer, inner = Profile(), Profile()
    with profiled(outer):
        first = len(steps_of(D3LLM()))
        with profiled(inner):
            second = len(steps_of(FastDLLM()))
        with profiled(None):
            third = len(steps_of(D3LLM()))
    steps_of(D3LLM())
    assert (outer.steps, inner.steps) == (first + third, second)
