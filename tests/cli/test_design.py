"""The examples of docs/design.md run as printed: a decoder, a model family, a command and a kernel."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import pytest

from d3mlx import models
from d3mlx.cli.main import COMMANDS, MEASURE, Entry
from d3mlx.decoding.presets import PRESETS
from tests.builders import write_llada
from tests.metal import Emulation, emulated
from tests.metal.requirements import require_compiler

PAGE = Path(__file__).parents[2] / "docs" / "design.md"


def example(file: str) -> ModuleType:
    """Return the module of the example whose first line names `file`."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType(Path(file).stem)
    # Dataclasses look up their module.
    with patch.dict(sys.modules, {module.__name__: module}):
        exec(dict(blocks)[file], module.__dict__)
    return module


def test_the_decoder_runs_with_its_flag(monkeypatch: pytest.MonkeyPatch, d3mlx: Any, llada: str) -> None:
    monkeypatch.setitem(PRESETS, "coins", example("d3mlx/decoding/coins.py").Coins)
    run = ["generate", "hi", "--model", llada, "--decoder", "coins", "--max-tokens", "8", "--no-early-stop", "--json"]
    done = d3mlx(*run, "--hurry", "2")
    assert done.status == 0, done.err
    assert [len(json.loads(line)["positions"]) for line in done.out.splitlines()[:-1]] == [4, 4]
    assert "Denoising steps for the answer." in d3mlx("decoders", "coins").out


def test_the_family_runs_with_its_traits(monkeypatch: pytest.MonkeyPatch, d3mlx: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(models.FAMILIES, "toy", example("d3mlx/models/toy.py"))
    folder = write_llada(tmp_path / "toy", model_type="toy")
    assert "toy" in d3mlx("info", str(folder)).out
    trace = tmp_path / "trace.json"
    done = d3mlx("generate", "hello", "--model", str(folder), "--max-tokens", "8", "--trace", str(trace))
    assert done.status == 0, done.err
    run = json.loads(trace.read_text())
    assert len(run["prompt"]) == len("hello?")
    assert run["config"]["policies"]["acceptance"]["threshold"] == 0.25
    assert run["config"]["policies"]["cache"]["source"] == 1
    unknown = d3mlx("info", str(write_llada(tmp_path / "other", model_type="other")))
    assert unknown.status == 1
    assert "toy" in unknown.err


def test_the_command_is_listed_and_runs(monkeypatch: pytest.MonkeyPatch, d3mlx: Any) -> None:
    monkeypatch.setitem(sys.modules, "d3mlx.cli.hello", example("cli/hello.py"))
    monkeypatch.setitem(COMMANDS, "hello", Entry("d3mlx.cli.hello:hello", MEASURE, "Greet somebody."))
    assert d3mlx("hello", "Mia").out == "Hello, Mia.\n"


def test_the_kernel_equals_its_reference() -> None:
    require_compiler()
    kernel = example("kernels/scale_rows.py")
    x, factors = mx.random.normal((3, 5)), mx.random.normal((3,))
    with emulated(Emulation(seed=1)) as records:
        assert mx.array_equal(kernel.scale_rows(x, factors), kernel.reference(x, factors))
    assert len(records) == 1
