"""A new family is one file and one line in the registry: everything else follows from its traits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from d3mlx import models
from d3mlx.models import llada
from tests.builders import write_llada


def toy() -> ModuleType:
    """The file of a family with LLaDA's body, Dream's shift, a template of its own and a stricter d3LLM."""
    module = ModuleType("toy")
    traits = replace(
        llada.TRAITS,
        name="toy",
        shift=1,
        template="{% for message in messages %}{{ message['content'] }}{% endfor %}{{ '?' }}",
        turn_end="<|eot_id|>",
        d3llm=replace(llada.TRAITS.d3llm, threshold=0.25),
    )

    class Model(llada.Model):
        family, shift = traits.name, traits.shift

    module.Model, module.ModelArgs, module.TRAITS = Model, llada.ModelArgs, traits  # type: ignore[attr-defined]
    return module


def test_a_toy_family_runs_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, d3mlx: Any) -> None:
    monkeypatch.setitem(models.FAMILIES, "toy", toy())
    folder = write_llada(tmp_path / "toy", model_type="toy")
    described = d3mlx("info", str(folder))
    assert "toy" in described.out
    trace = tmp_path / "trace.json"
    done = d3mlx("generate", "hello", "--model", str(folder), "--max-tokens", "8", "--trace", str(trace))
    assert done.status == 0, done.err
    found = json.loads(trace.read_text())
    assert len(found["prompt"]) == len("hello?")
    assert found["config"]["policies"]["acceptance"]["threshold"] == 0.25
    assert found["config"]["policies"]["cache"]["source"] == 1
    refused = d3mlx("info", str(write_llada(tmp_path / "other", model_type="other")))
    assert refused.status == 1
    assert "toy" in refused.err
