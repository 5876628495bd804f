"""Invalid settings, sources and targets are refused with one sentence, and no files remain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.convert.target import new_folder
from d3mlx.errors import CheckpointError, ConfigError
from tests.builders import llada_weights, write_json, write_llada, write_weights
from tests.convert.folders import read, weights

REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Quantization("int8"), "Unknown quantization mode"),
    (lambda: Quantization(bits=7), "2, 3, 4, 5, 6, 8 bits"),
    (lambda: Quantization("mxfp4", bits=8), "mxfp4 has 4 bits"),
    (lambda: Quantization(group_size=16), "groups of 32, 64, 128"),
    (lambda: Quantization("nvfp4", recipe="mixed_2_6"), "not nvfp4"),
    (lambda: Quantization(recipe="mixed_1_2"), "Unknown recipe"),
    (lambda: Quantization(recipe="mixed_2_6", bits=4), "sets the bits itself"),
    (lambda: Recipe(dtype="float8"), "Invalid dtype"),
    (lambda: Recipe(Quantization(), dequantize=True), "Cannot quantize and dequantize"),
]


def test_invalid_settings_are_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    for make, words in REFUSED:
        with pytest.raises(ConfigError, match=words):
            make()
    with pytest.raises(ConfigError, match="it is not quantized"):
        convert(sources["llada"], tmp_path / "out", Recipe(dequantize=True))
    packed = convert(sources["llada"], tmp_path / "packed", Recipe(Quantization())).folder
    with pytest.raises(ConfigError, match="already quantized"):
        convert(packed, tmp_path / "out", Recipe(Quantization()))
    assert not (tmp_path / "out").exists()


def damage(folder: Path, how: str) -> None:
    """Make a checkpoint invalid in one way."""
    config = read(folder)
    named = llada_weights(config)
    first = sorted(folder.glob("*.safetensors"))[0]
    if how == "truncated":
        first.write_bytes(first.read_bytes()[:-10])
    elif how == "of another version":
        write_weights(folder, named, shards=2)
    elif how == "stored twice":
        write_weights(folder, {"model.transformer.ln_f.weight": mx.ones(64)})
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        write_weights(folder, named)
    elif how == "two names":
        write_weights(folder, named | {"model.norm.weight": mx.ones(64)})
    elif how == "boolean":
        write_json(folder / "config.json", config | {"weight_tying": "false"})
    elif how == "width":
        write_json(folder / "config.json", config | {"d_model": 64.0})
    elif how == "size":
        write_json(folder / "config.json", config | {"embedding_size": 10**30})
    elif how == "layers":
        write_json(folder / "config.json", config | {"n_layers": 200000})
    elif how == "base":
        (folder / "config.json").write_text(json.dumps(config | {"rope_theta": float("nan")}))
    elif how == "end tokens":
        write_json(folder / "generation_config.json", [])
    elif how == "template":
        fields = read(folder, "tokenizer_config.json")
        templates = [{"name": "../../evil", "template": "x"}, {"name": "default", "template": "x"}]
        write_json(folder / "tokenizer_config.json", fields | {"chat_template": templates})


DAMAGE = {
    "truncated": "truncated or damaged",
    "of another version": "is not listed in the index",
    "stored twice": "model-1.safetensors and in model.safetensors",
    "two names": "contains the same weights as",
    "boolean": "weight_tying must be true or false",
    "width": "d_model must be a whole number",
    "size": "The limit is",
    "layers": "200,000",
    "base": "rope_theta must be a number",
    "end tokens": "generation_config.json .* JSON object",
    "template": "tokenizer",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_source_is_refused_in_one_sentence(how: str, tmp_path: Path) -> None:
    source = write_llada(tmp_path / "source")
    damage(source, how)
    with pytest.raises(CheckpointError, match=DAMAGE[how]) as error:
        convert(source, tmp_path / "out", Recipe(Quantization()))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def spoil(arrays: dict[str, mx.array], how: str) -> None:
    """Make a quantized layer invalid in one way."""
    layer = "model.layers.0.mlp.down_proj"
    words, scales = arrays[f"{layer}.weight"], arrays[f"{layer}.scales"]
    if how == "half the words":
        arrays[f"{layer}.weight"] = words[:, :8]
    elif how == "fewer groups":
        arrays[f"{layer}.scales"] = scales[:, :1]
    elif how == "whole scales":
        arrays[f"{layer}.scales"] = scales.astype(mx.uint32)
    elif how == "floats for words":
        arrays[f"{layer}.weight"] = words.astype(mx.float32)
    elif how == "no biases":
        del arrays[f"{layer}.biases"]
    elif how == "no groups":
        arrays[f"{layer}.scales"] = arrays[f"{layer}.biases"] = mx.zeros((64, 0))


@pytest.mark.parametrize(
    "how", ["half the words", "fewer groups", "whole scales", "floats for words", "no biases", "no groups"]
)
def test_quantized_tensors_must_match_the_config(sources: dict[str, Path], how: str, tmp_path: Path) -> None:
    packed = convert(sources["llada"], tmp_path / "packed", Recipe(Quantization())).folder
    arrays = weights(packed)
    mx.eval(arrays)
    spoil(arrays, how)
    (packed / "model.safetensors.index.json").unlink()
    write_weights(packed, arrays)
    for recipe in (Recipe(), Recipe(dequantize=True)):
        with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.down_proj"):
            convert(packed, tmp_path / "out", recipe)


@pytest.mark.parametrize(
    "settings", [{"bits": 0}, {"bits": True}, {"group_size": 65}, {"mode": "zzz"}, {"x": {"bits": "4"}}]
)
def test_a_quantization_unknown_to_mlx_is_refused(sources: dict[str, Path], settings: Any, tmp_path: Path) -> None:
    packed = convert(sources["llada"], tmp_path / "packed", Recipe(Quantization())).folder
    config = read(packed)
    write_json(packed / "config.json", config | {"quantization": config["quantization"] | settings})
    with pytest.raises(CheckpointError, match="MLX does not support"):
        convert(packed, tmp_path / "out")


def test_unusual_sources_are_converted(tmp_path: Path) -> None:
    """A null quantization, a card with invalid YAML, and `auto_map` at any depth do not stop a conversion."""
    source = write_llada(tmp_path / "source", quantization=None, sub={"auto_map": {"a": "b"}})
    (source / "README.md").write_text("---\nlicense: [mit\n---\n# Model\n")
    write_json(source / "generation_config.json", {"auto_map": {"a": "b"}, "steps": 8})
    out = convert(source, tmp_path / "out", Recipe(Quantization())).folder
    assert all("auto_map" not in path.read_text() for path in out.glob("*.json"))
    assert read(out, "generation_config.json") == {"eos_token_id": [257, 261], "steps": 8}
    assert "library_name: mlx" in (out / "README.md").read_text()


def test_a_link_with_the_name_of_the_hidden_folder_is_not_followed(sources: dict[str, Path], tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    (tmp_path / ".out.partial").symlink_to(precious)
    with pytest.raises(ConfigError, match="Cannot write"):
        convert(sources["llada"], tmp_path / "out")
    assert (precious / "thesis.txt").read_text() == "x"


def test_a_failed_run_removes_the_folders_that_it_created(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError), new_folder(tmp_path / "p" / "q" / "out"):
        raise ConfigError("fails")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="inside the source checkpoint"):
        convert(sources["llada"], sources["llada"] / "model-out")


def test_existing_targets_and_a_full_disk_are_refused(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "link"):
        with pytest.raises(ConfigError, match="already exists"):
            convert(sources["llada"], tmp_path / name)
    with new_folder(tmp_path / "out"), pytest.raises(ConfigError, match="Another run"):
        convert(sources["llada"], tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ConfigError, match="Free some space"):
        convert(sources["llada"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "taken"]
