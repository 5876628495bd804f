"""The measurement of shared forwards: the same answers in fewer forwards."""

from __future__ import annotations

import pytest

from d3mlx import Selective
from d3mlx.distill.trajectories import Teacher
from d3mlx.research.experiments import batching


def test_shared_forwards_give_the_same_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "DECODERS", {"selective": Selective(), "trajectories": Teacher(8, "selective")})
    monkeypatch.setattr(batching, "GROUP", 2)
    batching.measure(count=3, batch_size=2)
    _, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["selective", "trajectories"]
    for row in rows:
        assert int(row[2]) < int(row[1])
        assert row[-1] == "3 of 3"
