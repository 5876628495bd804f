"""The time of each stage of a step, measured with a tiny model."""

from __future__ import annotations

import pytest

from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.research.experiments import overhead

SIZES = Sizes("llada", layers=1, hidden=64, heads=1, kv_heads=1, ff=64, vocab=64)


@pytest.mark.parametrize("name", overhead.DECODERS)
def test_every_step_after_the_first_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "SIZES", SIZES)
    monkeypatch.setattr(overhead, "PROMPT", 8)
    monkeypatch.setattr(overhead, "NEW", 16)
    run = overhead.Run(random_model(SIZES), overhead.DECODERS[name], [1, 2, 3])
    run.first()
    assert run.profile.steps == 0
    steps = []
    while (step := run.step()) is not None:
        steps.append(step)
    assert run.canvas.done
    assert run.profile.steps == len(steps) == len(run.rows) > 1
    cells = overhead.line(name, run)
    assert cells[:2] == [name, str(len(steps))]
    assert cells[-1].endswith(" %")
