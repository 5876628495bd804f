"""Invalid data, folders and settings are refused with one sentence, and nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import load
from d3mlx.distill.run import distill
from d3mlx.errors import CheckpointError, ConfigError, DataError
from d3mlx.files import locked
from tests.builders import write_llada
from tests.distill.runs import arrays, config_for, quiet


def line(**row: Any) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row) + "\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "contains no records"),
        ("{\n", "record 1: not valid JSON"),
        ("[" * 200_000 + "\n", "record 1: the record is nested"),
        (r'{"prompt": "\ud800", "completion": "y"}' + "\n", "record 1: .* surrogate"),
        (line(prompt="x", completion="y") + "{}\n", "record 2: the record is empty"),
        (line(prompt="x"), "record 1: the record has no completion"),
        (line(prompt="x", completion=" "), "record 1: the record has no completion"),
        (line(prompt="x" * 90, completion="y"), "record 1: the prompt .* leaves no room"),
        (line(prompt="x", completion="a<|mdm_mask|>"), "record 1: the record contains the mask token"),
        (
            line(messages=[{"role": "user", "content": "x"}]),
            "record 1: the messages must end with an answer of the assistant",
        ),
    ],
)
def test_invalid_rows_are_refused_in_one_sentence(tmp_path: Path, llada: Path, text: str, reason: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as error:
        distill(config_for(llada, path, tmp_path / "a"), quiet)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a").exists()


def test_trajectories_of_another_tokenizer_are_refused(tmp_path: Path, dream: Path, recorded: Path) -> None:
    with pytest.raises(DataError, match="a different tokenizer"):
        distill(config_for(dream, recorded, tmp_path / "a"), quiet)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        distill(config_for(dream, tmp_path / "none", tmp_path / "a"), quiet)
    with pytest.raises(ConfigError, match="does not say which answers are correct"):
        distill(config_for(recorded_model(recorded), recorded, tmp_path / "a", only_correct=True), quiet)


def recorded_model(recorded: Path) -> Path:
    """Return a model with the tokenizer of the recording."""
    return write_llada(recorded.parent / "student")


def test_a_loss_that_is_not_a_number_names_its_rows(tmp_path: Path, llada: Path, data: Path) -> None:
    config = config_for(llada, data, tmp_path / "a", iters=6, learning_rate=1e30, clip=1e30, save_every=1)
    with pytest.raises(DataError, match=r"not a number in step \d.*train.jsonl, record \d"):
        distill(config, quiet)
    saved = arrays(tmp_path / "a" / "checkpoint.safetensors")
    assert saved and all(np.isfinite(value).all() for value in saved.values())


def test_resuming_with_other_parameters_is_refused(tmp_path: Path, llada: Path, data: Path) -> None:
    config = config_for(llada, data, tmp_path / "a", iters=4)
    distill(config, quiet, stop_after=1)
    mx.save_safetensors(str(tmp_path / "a" / "checkpoint.safetensors"), {"weights/x": mx.ones(2)}, {"step": "1"})
    with pytest.raises(CheckpointError, match="other trainable parameters"):
        distill(config, quiet, resume=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_refused_run_does_not_change_the_folder(tmp_path: Path, llada: Path, dream: Path, data: Path) -> None:
    sft = {"objective": "sft", "iters": 4}
    config = config_for(llada, data, tmp_path / "a", **sft)
    distill(config, quiet, stop_after=1)
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("six", "ten"))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(data.read_bytes())
    changed = write_llada(tmp_path / "changed")
    weights = arrays(changed / "model.safetensors")
    mx.save_safetensors(
        str(changed / "model.safetensors"), {name: mx.array(value) * 1.5 for name, value in weights.items()}
    )
    before = contents(tmp_path / "a")
    for changed_config, reason in [
        (replace(config, data=str(other)), "The data .* is not the one of the run"),
        (replace(config, model=str(changed)), "The model .* is not the one of the run"),
        (replace(config, model=str(dream)), "The model .* is not the one of the run|other trainable"),
        (replace(config, num_layers=1), "num-layers"),
    ]:
        with pytest.raises((ConfigError, CheckpointError), match=reason):
            distill(changed_config, quiet, resume=True)
        assert contents(tmp_path / "a") == before
    for name, content in [("distill.json", b"{"), ("distill.json", b"[]"), ("checkpoint.safetensors", b"")]:
        (tmp_path / "a" / name).write_bytes(content)
        with pytest.raises((ConfigError, CheckpointError), match=rf"{name} is .*damaged"):
            distill(config, quiet, resume=True)
        (tmp_path / "a" / name).write_bytes(before[name])
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(before["checkpoint.safetensors"][:-9])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged"):
        distill(config, quiet, resume=True)
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(before["checkpoint.safetensors"])
    with locked(tmp_path / "a"), pytest.raises(ConfigError, match="Another run is writing"):
        distill(config, quiet, resume=True)
    assert contents(tmp_path / "a") == before
    assert distill(replace(config, data=str(moved)), quiet, resume=True) == 3
    assert distill(config, quiet, resume=True) == 0


def test_folders_with_other_files_do_not_change(tmp_path: Path, llada: Path, data: Path) -> None:
    model = write_llada(tmp_path / "model")
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapters.safetensors").write_bytes(b"theirs")
    for folder, reason in ((model, "other files"), (adapters, "other files"), (data, "is a file")):
        before = contents(folder) if folder.is_dir() else folder.read_bytes()
        with pytest.raises(ConfigError, match=reason):
            distill(config_for(llada, data, folder, objective="sft"), quiet)
        assert (contents(folder) if folder.is_dir() else folder.read_bytes()) == before


def test_a_full_disk_is_reported_in_one_sentence(
    tmp_path: Path, llada: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("[write] Unable to write 10 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors cannot be written: .*\. Make room"):
        distill(config_for(llada, data, tmp_path / "a", objective="sft", iters=1), quiet)
    assert not any("partial" in path.name for path in (tmp_path / "a").iterdir())
    monkeypatch.undo()
    assert distill(config_for(llada, data, tmp_path / "a", objective="sft", iters=1), quiet) == 1


def test_data_must_fit_the_objective(tmp_path: Path, llada: Path, data: Path) -> None:
    for changes, reason in [
        ({"objective": "d3llm"}, "Use --objective sft"),
        ({"objective": "sft", "only_correct": True}, "Cannot use --only-correct"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            distill(config_for(llada, data, tmp_path / "a", **changes), quiet)
    assert not (tmp_path / "a").exists()


def test_adapters_of_another_model_are_refused_with_its_name(
    tmp_path: Path, llada: Path, dream: Path, data: Path
) -> None:
    distill(config_for(llada, data, tmp_path / "a", objective="sft", iters=1), quiet)
    path = tmp_path / "a" / "adapters.safetensors"
    other = {name: mx.zeros((3, 3)) for name in arrays(path)}
    mx.save_safetensors(str(path), other)
    with pytest.raises(CheckpointError) as error:
        load(llada, adapter_path=tmp_path / "a")
    text = str(error.value)
    assert f"and {len(other) - 1} tensors more; they were trained for {llada}." in text
    assert text.count("model.layers") == 1
