"""Models and data of small training runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlx_lm.utils import quantize_model, save_model

from d3mlx import load
from d3mlx.distill.recording import record_all, settings_of
from d3mlx.distill.trajectories import RecordConfig
from tests.builders import LLADA_CONFIG, write_dream, write_json, write_llada
from tests.distill.runs import WORDS


@pytest.fixture(scope="module")
def llada(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llada(tmp_path_factory.mktemp("llada"))


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dream(tmp_path_factory.mktemp("dream"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [{"prompt": f"say {word}", "completion": word * 3} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, llada: Path) -> Path:
    """Return a folder with trajectories of the tiny model."""
    from d3mlx.distill.prompts import questions

    folder = tmp_path_factory.mktemp("recorded") / "trajectories"
    teacher = load(llada)
    prompts = folder.with_name("prompts.jsonl")
    prompts.write_text("".join(json.dumps({"prompt": word}) + "\n" for word in WORDS))
    rows = questions(str(prompts), *teacher, 40, False, None)
    record_all(*teacher, rows, RecordConfig(max_tokens=40), folder, settings_of(*teacher), 4, lambda *_: None)
    return folder


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, llada: Path) -> Path:
    target = tmp_path_factory.mktemp("quantized")
    model, config = quantize_model(load(llada)[0], dict(LLADA_CONFIG), 32, 4)  # type: ignore[arg-type]
    save_model(target, model)
    write_json(target / "config.json", config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((llada / name).read_bytes())
    return target
