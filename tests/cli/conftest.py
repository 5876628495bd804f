"""The command line through its real entry point, and models to give it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from d3mlx.cli.main import run
from tests.builders import write_dream, write_llada

COMMAND = str(Path(sys.executable).with_name("d3mlx"))


@pytest.fixture(scope="module")
def llada(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_llada(tmp_path_factory.mktemp("llada")))


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dream(tmp_path_factory.mktemp("dream")))


class Done(NamedTuple):
    """Exit status and output of a run."""

    status: int
    out: str
    err: str


@pytest.fixture
def d3mlx(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Call the entry point as the shell does, in this process."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["d3mlx", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run()
        captured = capfd.readouterr()
        return Done(int(end.value.code or 0), captured.out, captured.err)

    return call
