"""Damaged and incomplete folders: one error that names the damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from d3mlx import load
from d3mlx import load as load_checkpoint
from d3mlx.errors import CheckpointError
from tests.builders import (
    LLADA_CONFIG,
    llada_weights,
    write_dream,
    write_json,
    write_llada,
    write_weights,
)


def change(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        write_json(path, edit(json.loads(path.read_text())))

    return apply


def without(key: str) -> Callable[[Any], Any]:
    return lambda config: {k: v for k, v in config.items() if k != key}


def reweigh(edit: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> Callable[[Path], None]:
    return lambda folder: write_weights(folder, edit(llada_weights(LLADA_CONFIG)))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff\xff\xff")


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def only_adapters(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    write_json(folder / "adapter_config.json", {"rank": 8})


def lost_shard(folder: Path) -> None:
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "model-00002-of-00002.safetensors"}})


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None  # type: ignore[return-value]


def notes(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]) | {"__metadata__": {"epoch": 3}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def pointer(name: str) -> Callable[[Path], Any]:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    return lambda folder: (folder / name).write_text(text)


def dangling(name: str) -> Callable[[Path], Any]:
    return lambda folder: ((folder / name).unlink(), (folder / name).symlink_to(folder / "gone"))


NORM = "model.transformer.ln_f.weight"
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (remove("config.json"), "no config.json"),
    "broken json": (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "does not contain a JSON object"),
    "other architecture": (change("config.json", lambda c: {**c, "model_type": "gpt2"}), "gpt2"),
    "own code": (change("config.json", lambda c: {**c, "model_file": "m.py"}), "model_file"),
    "no family": (change("config.json", without("model_type")), "no model_type"),
    "fields missing": (change("config.json", lambda c: without("n_heads")(without("d_model")(c))), "d_model.*n_heads"),
    "no layers": (change("config.json", lambda c: {**c, "n_layers": 0}), "without layers"),
    "no width": (change("config.json", lambda c: {**c, "d_model": 0}), "without layers"),
    "end id no number": (change("config.json", lambda c: {**c, "eos_token_id": "end"}), "must be a whole number"),
    "quantized by others": (
        change("config.json", lambda c: {**c, "quantization_config": {"quant_method": "gptq", "bits": 4}}),
        "gptq",
    ),
    "quantization a text": (change("config.json", lambda c: {**c, "quantization": "4bit"}), "bits, group_size or mode"),
    "no mask id": (change("config.json", without("mask_token_id")), "mask_token_id"),
    "mask id outside": (change("config.json", lambda c: {**c, "mask_token_id": 9999}), "9999"),
    "field of a wrong type": (change("config.json", lambda c: {**c, "n_heads": "four"}), "must be a whole number"),
    "no weights": (remove("model.safetensors"), "contains no model"),
    "pickle": (only_pickle, "pickled code"),
    "truncated": (truncate, "truncated"),
    "no header": (cut_header, "truncated"),
    "adapters alone": (only_adapters, "LoRA adapters"),
    "index without map": (
        lambda folder: write_json(folder / "model.safetensors.index.json", {"weight_map": [1]}),
        "weight_map",
    ),
    "lost shard": (lost_shard, "model-00002-of-00002"),
    "missing tensor": (reweigh(lambda w: {k: v for k, v in w.items() if k != NORM}), "model.norm.weight"),
    "unknown tensor": (reweigh(lambda w: {**w, "extra.weight": mx.ones(3)}), "extra.weight"),
    "wrong shape": (reweigh(lambda w: {**w, NORM: mx.ones(3)}), r"model.norm.weight has shape \[3\]"),
    "integers for weights": (reweigh(lambda w: {**w, NORM: mx.ones(64, mx.int32)}), "stored as I32"),
    "metadata that is not text": (notes, "truncated"),
    "weights not fetched": (pointer("model.safetensors"), "git lfs pull"),
    "tokenizer not fetched": (pointer("tokenizer.json"), "tokenizer.json is a Git LFS pointer.*git lfs pull"),
    "tokenizer settings a list": (
        lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
        "tokenizer_config.json does not contain a JSON object. Download",
    ),
    "link to nothing": (dangling("model.safetensors"), "model.safetensors is a link to a file that does not exist"),
    "tokenizer a link to nothing": (dangling("tokenizer.json"), "tokenizer.json is a link to a file"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_damaged_folder_gives_an_error_that_names_the_damage(tmp_path: Path, name: str) -> None:
    break_it, culprit = WRONG[name]
    folder = write_llada(tmp_path / "model")
    break_it(folder)
    with pytest.raises(CheckpointError, match=culprit) as caught:
        load_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_an_incomplete_dream_tokenizer_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_dream(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load(folder)


HEL = '{"h": 0, "e": 1, "l": 2, "he": 3, "hel": 4}'


@pytest.mark.parametrize(("name", "text"), [("vocab.json", HEL), ("merges.txt", ""), ("merges.txt", "#version: 0.2")])
def test_an_emptied_dream_tokenizer(tmp_path: Path, name: str, text: str) -> None:
    """The library takes both, and the model would read other tokens than it was trained on."""
    folder = write_dream(tmp_path / "model", merges=("h e", "he l"))
    load(folder)
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"{name} is truncated or damaged"):
        load(folder)
