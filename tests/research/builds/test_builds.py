"""Builds of the student, its control and the autoregressive counterpart, with tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import llama

from d3mlx import FastDLLM, load
from d3mlx.data.stories.stories import problem
from d3mlx.data.stories.tokenizer import build_tokenizer
from d3mlx.distill.optimizer import OptimizerConfig
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.distill.trajectory_store import read_settings, read_store
from d3mlx.errors import ConfigError
from d3mlx.evaluate.tasks import task
from d3mlx.files import fingerprint
from d3mlx.research import abilities
from d3mlx.research.batches import Source
from d3mlx.research.builds import control, next_token, shipped, student
from d3mlx.research.builds.teacher import config_of, initialize, new_model
from tests.distill.runs import Quiet, arrays


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained teacher with one layer of width 64 and the bundled teacher's tokenizer."""
    tokenizer = build_tokenizer()
    config = config_of(tokenizer) | {"d_model": 64, "n_layers": 1, "n_heads": 1, "mlp_hidden_size": 64}
    config |= {"n_kv_heads": 1}
    folder = tmp_path_factory.mktemp("teacher") / "floats"
    shipped.save_floats(folder, new_model(config, 0), tokenizer, config)
    shipped.publish(folder, folder.with_name("teacher"), "teacher", "Untrained.", 1)
    return folder.with_name("teacher")


def gap(first_model: Any, second_model: Any) -> float:
    """Return the largest difference between the models' embeddings. It is large between two random starts."""
    first, second = (np.array(model.model.embed_tokens.weight) for model in (first_model, second_model))
    return float(np.abs(first - second).max())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make builds quick: all answers count as correct, training takes one epoch, and one decoder is measured."""
    monkeypatch.setattr(abilities, "DECODERS", {"fast-dllm": FastDLLM()})
    monkeypatch.setattr("d3mlx.distill.trajectories.is_correct", lambda *_: True)
    monkeypatch.setattr(student, "DISTILL", replace(student.DISTILL, batch_size=2, epochs=1))


def test_a_student_and_its_control_are_built(teacher: Path, quick: None, tmp_path: Path) -> None:
    work, out = student.Work(tmp_path / "work"), tmp_path / "student"
    arguments: dict[str, Any] = {"out": out, "work": work.folder, "teacher": str(teacher), "recorded": 2, "problems": 1}
    student.build(**arguments)
    assert [t.row for t in read_store(work.trajectories(0))] == [0, 1]
    start, end = (arrays(work.student(number) / "model.safetensors") for number in (-1, 0))
    assert any((start[name] != end[name]).any() for name in start)
    calibrated = arrays(work.calibrated / "model.safetensors")
    changed = [name for name in end if (end[name] != calibrated[name]).any()]
    assert changed == ["lm_head.weight"]
    assert np.allclose(end["lm_head.weight"], student.TEMPERATURE * calibrated["lm_head.weight"], rtol=1e-6)
    model: Any = load(teacher)[0]
    assert np.array_equal(start["model.embed_tokens.weight"], np.array(model.model.embed_tokens.weight))
    assert (out / "config.json").read_text().count('"bits": 8') and "Built from" not in (out / "README.md").read_text()
    with pytest.raises(ConfigError, match="--resume"):
        student.build(**arguments)
    student.build(**arguments, resume=True, rounds=1)
    assert arrays(work.student(0) / "model.safetensors").keys() == end.keys()
    assert [t.row for t in read_store(work.trajectories(1))] == [2, 3]
    assert read_settings(work.trajectories(1))["teacher_fingerprint"] == fingerprint(work.student(0))
    with pytest.raises(ConfigError, match="another teacher"):
        student.build(**arguments | {"teacher": str(out)}, resume=True)


def test_a_control_continues_the_training_of_the_teacher(
    teacher: Path, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "DISTILL", student.DISTILL)
    out, work = tmp_path / "control", tmp_path / "work"
    arguments: dict[str, Any] = {"out": out, "work": work, "teacher": str(teacher), "recorded": 4, "problems": 1}
    control.build(**arguments, steps=2)
    assert "step 2/2: loss" in capsys.readouterr().err
    log = (work / "log.jsonl").read_text().splitlines()
    assert len(log) == 1 and '"step": 2' in log[0]
    assert 0 < gap(load(teacher)[0], load(out)[0]) < 0.1
    with pytest.raises(ConfigError, match="--resume"):
        control.build(**arguments, steps=2)
    with pytest.raises(ConfigError, match="other settings"):
        control.build(**arguments, steps=3, resume=True)


def test_a_control_learns_from_the_first_training_problems() -> None:
    solutions, tokenizer = control.Solutions(6, replace(student.DISTILL, batch_size=2)), build_tokenizer()
    questions = {problem(i).question for i in range(6)}
    shown = {tokenizer.decode(ids).split("<|eot_id|>")[0] for step in range(6) for ids in solutions.batch(step).ids}
    assert {text.split("\n\n")[-1] for text in shown} == questions


def test_next_token_targets_are_the_responses() -> None:
    batch = Source(build_tokenizer(), 4, 0).problems(0)
    masked = next_token.next_tokens(batch)
    real = np.array(masked.weights) > 0
    rows, targets = np.array(masked.rows)[real], np.array(masked.targets)[real]
    length = batch.ids.shape[1]
    assert (targets == batch.ids.flat[rows + 1]).all() and (batch.weights.flat[rows + 1] == 1).all()
    assert len(rows) == (batch.weights == 1).sum() and (rows % length < length - 1).all()
    assert np.array_equal(np.array(masked.ids), batch.ids)


def test_the_autoregressive_model_learns_and_decodes_greedily(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    small = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 1}
    config = next_token.llama_config(tokenizer) | small
    model = llama.Model(llama.ModelArgs.from_dict(config))
    initialize(model, 1, 0)
    objective, watcher = next_token.NextTokenLoss(Source(tokenizer, 2, 0)), Quiet()
    plan = TrainConfig(30, optimizer=OptimizerConfig(peak_rate=1e-2, warmup=1, average=None))
    Trainer(model, objective, plan, tmp_path / "work").run(watcher=watcher)
    assert np.mean(watcher.losses[-5:]) < np.mean(watcher.losses[:5]) - 0.3
    shipped.save_floats(tmp_path / "model", model, tokenizer, config)
    subject = next_token.NextToken.of(tmp_path / "model")
    record = subject(0)
    prompt = tokenizer.apply_chat_template(
        task("embedded", "llada").ask(0).prompt(tokenizer), add_generation_prompt=True, return_dict=False
    )
    ids = [*prompt]
    for _ in range(record.tokens):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1])))
    expected = tokenizer.decode([i for i in ids[len(prompt) :] if i not in subject.tokenizer.eos_token_ids])
    assert record.text.strip() == expected.strip()
    assert record.forwards == record.tokens and record.rows == len(prompt) + record.tokens - 1
