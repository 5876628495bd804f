"""The converter: what it writes equals what mlx-lm computes, every tool reads it, and nothing is ever half-written."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import mlx.core as mx
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import dequantize_model, load_model, load_tokenizer, quantize_model

from d3mlx import generate, load
from d3mlx.api import encode
from d3mlx.checkpoint import open_checkpoint
from d3mlx.cli.main import run
from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.convert.card import check_login, upload
from d3mlx.convert.target import new_folder
from d3mlx.data.problems import problem
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.loader import EMBEDDED
from d3mlx.models import get_model_classes
from tests.builders import llada_weights, write_dream, write_json, write_llada, write_weights
from tests.convert.synthetic import config_of, peak_of, peak_of_convert, write_synthetic

WRITERS: dict[str, Callable[..., Path]] = {"llada": write_llada, "dream": write_dream}
IDS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sources")
    return {family: write(place / family, shards=3) for family, write in WRITERS.items()}


def weights(folder: Path) -> dict[str, mx.array]:
    """Every tensor in the folder's files."""
    found: dict[str, mx.array] = {}
    for file in folder.glob("model*.safetensors"):
        found |= dict(mx.load(str(file)).items())  # type: ignore[union-attr]
    return found


def same(a: dict[str, mx.array], b: dict[str, mx.array]) -> bool:
    alike = a.keys() == b.keys() and all(a[name].dtype == b[name].dtype for name in a)
    return alike and all(bool(mx.array_equal(a[name], b[name])) for name in a)


def read(folder: Path, name: str = "config.json") -> Any:
    return json.loads((folder / name).read_text())


def original(folder: Path) -> Any:
    model, _ = load_model(folder, get_model_classes=get_model_classes)
    return model


@pytest.mark.parametrize("family", WRITERS)
def test_plain_conversion_keeps_every_weight(sources: dict[str, Path], family: str, tmp_path: Path) -> None:
    summary = convert(sources[family], tmp_path / "out")
    assert same(weights(summary.folder), dict(tree_flatten(original(sources[family]).parameters())))
    assert bool(mx.array_equal(original(summary.folder)(IDS), original(sources[family])(IDS)))
    assert summary.bits_per_weight == 32


QUANTIZATIONS = [
    *(Quantization(bits=bits, group_size=32) for bits in (2, 3, 4, 5, 6, 8)),
    Quantization(),
    *(Quantization(mode) for mode in ("mxfp4", "nvfp4", "mxfp8")),
    *(Quantization(recipe=recipe) for recipe in ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")),
]
ERRORS = {
    "2 bit": (Quantization(bits=2), 0.4),
    "3 bit": (Quantization(bits=3), 0.16),
    "4 bit": (Quantization(bits=4), 0.08),
    "5 bit": (Quantization(bits=5), 0.045),
    "6 bit": (Quantization(bits=6), 0.02),
    "mxfp4": (Quantization("mxfp4"), 0.15),
    "nvfp4": (Quantization("nvfp4"), 0.09),
    "mxfp8": (Quantization("mxfp8"), 0.04),
    "mixed_3_6": (Quantization(recipe="mixed_3_6"), 0.13),
}
"""Largest relative error (Euclidean norm) of the logits of the demonstration model."""


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=lambda q: f"{q.mode}-{q.bits}-{q.recipe}")
def test_quantized_weights_are_those_of_mlx_lm(
    sources: dict[str, Path], quantization: Quantization, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit, with the same config; nothing is printed."""
    family = "dream" if quantization.recipe else "llada"
    summary = convert(sources[family], tmp_path / "out", Recipe(quantization), max_shard_bytes=30_000)
    assert capsys.readouterr().out == ""
    model, recipe = original(sources[family]), quantization.recipe
    predicate = mixed_quant_predicate_builder(recipe, model, 64) if recipe else None
    model, config = quantize_model(
        model,
        dict(read(sources[family])),
        quantization.group,
        quantization.lowest_bits,
        mode=quantization.mode,
        quant_predicate=predicate,
    )
    assert same(weights(summary.folder), dict(tree_flatten(model.parameters())))
    assert read(summary.folder)["quantization"] == config["quantization"] == read(summary.folder)["quantization_config"]
    assert bool(mx.array_equal(original(summary.folder)(IDS), model(IDS)))
    assert summary.files > 1


def test_quantized_logits_stay_near(tmp_path: Path) -> None:
    source = convert(EMBEDDED, tmp_path / "source", Recipe(dequantize=True, dtype="float32")).folder
    model, tokenizer = load(source)
    question = [{"role": "user", "content": problem(0, "held-out").question}]
    ids = mx.array([[*encode(tokenizer, question), *([model.args.mask_token_id] * 32)]])
    plain = model(ids)
    for name, (quantization, bound) in ERRORS.items():
        out = convert(source, tmp_path / name, Recipe(quantization)).folder
        error = float(mx.linalg.norm(load(out)[0](ids) - plain) / mx.linalg.norm(plain))
        assert 0 < error < bound, name


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4", "mxfp8"])
def test_dequantizing_gives_what_the_quantized_model_computes_with(
    sources: dict[str, Path], mode: str, tmp_path: Path
) -> None:
    packed = convert(sources["dream"], tmp_path / "packed", Recipe(Quantization(mode))).folder
    back = convert(packed, tmp_path / "back", Recipe(dequantize=True)).folder
    assert same(weights(back), dict(tree_flatten(dequantize_model(original(packed)).parameters())))
    assert "quantization" not in read(back) and "quantization_config" not in read(back)
    kinds = {value.dtype for name, value in weights(back).items() if "proj.weight" in name}
    assert kinds == {mx.float32 if mode == "affine" else mx.bfloat16}
    wide = convert(packed, tmp_path / "wide", Recipe(dequantize=True, dtype="float16")).folder
    model = original(packed)
    model.set_dtype(mx.float16)
    model = dequantize_model(model)
    model.set_dtype(mx.float16)
    assert same(weights(wide), dict(tree_flatten(model.parameters())))


def test_the_dtype_of_floats(tmp_path: Path) -> None:
    """What is asked for, else what config.json says, else as stored; config.json tells the truth afterwards."""
    source = write_llada(tmp_path / "source", torch_dtype="bfloat16")
    cases: list[tuple[Recipe, Any]] = [(Recipe(), mx.bfloat16), (Recipe(dtype="float16"), mx.float16)]
    for i, (recipe, dtype) in enumerate(cases):
        out = convert(source, tmp_path / str(i), recipe).folder
        assert {value.dtype for value in weights(out).values()} == {dtype}
        assert read(out)["torch_dtype"] == str(dtype).removeprefix("mlx.core.")
    packed = convert(source, tmp_path / "packed", Recipe(Quantization(), dtype="float32")).folder
    assert {value.dtype for value in weights(packed).values()} == {mx.uint32, mx.float32}


@pytest.mark.parametrize("family", WRITERS)
def test_every_tool_reads_the_folder(sources: dict[str, Path], family: str, tmp_path: Path) -> None:
    out = convert(sources[family], tmp_path / "out", Recipe(Quantization(bits=8))).folder
    model, tokenizer = load(out)
    chat = [{"role": "user", "content": "hello"}]
    assert generate(model, tokenizer, chat, max_tokens=8).stats.tokens
    _, before = load(sources[family])
    prompt = before.apply_chat_template(chat, add_generation_prompt=True)
    script = (
        "import sys; from pathlib import Path; from mlx_lm.utils import load_tokenizer\n"
        "t = load_tokenizer(Path(sys.argv[1]))\n"
        "print(list(t.apply_chat_template([{'role': 'user', 'content': 'hello'}], add_generation_prompt=True,"
        " return_dict=False)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(prompt)
    assert load_tokenizer(out, eos_token_ids=read(out, "generation_config.json")["eos_token_id"]).eos_token_ids == set(
        before.eos_token_ids
    )
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "tokenizer.json", "generation_config.json", "README.md"} <= names
    assert not any(name.endswith(".py") for name in names)
    assert "auto_map" not in read(out) and "auto_map" not in read(out, "tokenizer_config.json")
    index = read(out, "model.safetensors.index.json")
    assert index["weight_map"].keys() == weights(out).keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights(out).values())
    assert list(read(out)) == sorted(read(out))


def test_shards_hold_at_most_their_limit_or_one_layer(sources: dict[str, Path], tmp_path: Path) -> None:
    out = convert(sources["llada"], tmp_path / "out", max_shard_bytes=70_000).folder
    files = sorted(out.glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))
    ]
    for file in files:
        arrays = [value.nbytes for value in dict(mx.load(str(file)).items()).values()]  # type: ignore[union-attr]
        assert sum(arrays) <= 70_000 or len(arrays) == 1
    assert same(weights(out), dict(tree_flatten(original(sources["llada"]).parameters())))


def test_llama_style_keys_and_tied_heads(tmp_path: Path) -> None:
    source = write_llada(tmp_path / "source", weight_tying=True)
    mlx_layout = convert(source, tmp_path / "mlx", Recipe(Quantization(bits=8))).folder
    assert not any("lm_head" in name for name in weights(mlx_layout))
    again = convert(mlx_layout, tmp_path / "again").folder
    assert same(weights(again), weights(mlx_layout))
    assert read(again) == read(mlx_layout)


def test_layers_that_do_not_divide_are_named(tmp_path: Path) -> None:
    source = write_llada(tmp_path / "ff", mlp_hidden_size=96)
    words = r"layers\.0\.mlp\.down_proj \(and 1 more layers\) has rows of 96 weights.* use groups of 32"
    with pytest.raises(ConfigError, match=words):
        convert(source, tmp_path / "out", Recipe(Quantization()))
    assert convert(source, tmp_path / "out", Recipe(Quantization(group_size=32))).bits_per_weight < 7


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Quantization("int8"), "no quantization mode"),
    (lambda: Quantization(bits=7), "2, 3, 4, 5, 6, 8 bits"),
    (lambda: Quantization("mxfp4", bits=8), "mxfp4 stores 4 bits"),
    (lambda: Quantization(group_size=16), "groups of 32, 64, 128"),
    (lambda: Quantization("nvfp4", recipe="mixed_2_6"), "cannot be nvfp4"),
    (lambda: Quantization(recipe="mixed_1_2"), "no recipe"),
    (lambda: Quantization(recipe="mixed_2_6", bits=4), "sets the bits itself"),
    (lambda: Recipe(dtype="float8"), "no dtype"),
    (lambda: Recipe(Quantization(), dequantize=True), "not both"),
]


def test_settings_that_make_no_sense(sources: dict[str, Path], tmp_path: Path) -> None:
    for make, words in REFUSED:
        with pytest.raises(ConfigError, match=words):
            make()
    with pytest.raises(ConfigError, match="nothing to dequantize"):
        convert(sources["llada"], tmp_path / "out", Recipe(dequantize=True))
    packed = convert(sources["llada"], tmp_path / "packed", Recipe(Quantization())).folder
    with pytest.raises(ConfigError, match="quantized already"):
        convert(packed, tmp_path / "out", Recipe(Quantization()))
    assert not (tmp_path / "out").exists()


def damage(folder: Path, how: str) -> None:
    """One thing that is wrong with a checkpoint."""
    config = read(folder)
    named = llada_weights(config)
    first = sorted(folder.glob("*.safetensors"))[0]
    if how == "truncated":
        first.write_bytes(first.read_bytes()[:-10])
    elif how == "unknown":
        write_weights(folder, named | {"model.transformer.extra.weight": mx.ones(3)})
    elif how == "missing":
        write_weights(folder, {name: value for name, value in named.items() if "ln_f" not in name})
    elif how == "shape":
        write_weights(folder, named | {"model.transformer.ln_f.weight": mx.ones(3)})
    elif how == "json":
        (folder / "config.json").write_text("{")
    elif how == "architecture":
        write_json(folder / "config.json", config | {"model_type": "llama"})
    elif how == "adapters":
        (folder / "config.json").rename(folder / "adapter_config.json")
    elif how == "index":
        write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "model-9.safetensors"}})
    elif how == "tokenizer":
        (folder / "tokenizer.json").unlink()
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
    "unknown": "model.transformer.extra.weight",
    "missing": "model.norm.weight",
    "shape": "model.norm.weight",
    "json": "not valid JSON",
    "architecture": "'llama'",
    "adapters": "LoRA adapters",
    "index": "model-9.safetensors",
    "tokenizer": "no tokenizer",
    "of another version": "its index does not list",
    "stored twice": "model-1.safetensors and in model.safetensors",
    "two names": "two names of the same weights",
    "boolean": "weight_tying must be true or false",
    "width": "d_model must be a whole number",
    "size": "a model that cannot exist",
    "layers": "200000 layers",
    "base": "rope_theta must be a number",
    "end tokens": "generation_config.json holds no JSON object",
    "template": "tokenizer",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_wrong_source_is_one_sentence(how: str, tmp_path: Path) -> None:
    source = write_llada(tmp_path / "source")
    damage(source, how)
    with pytest.raises(CheckpointError, match=DAMAGE[how]) as error:
        convert(source, tmp_path / "out", Recipe(Quantization()))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def spoil(arrays: dict[str, mx.array], how: str) -> None:
    """One thing that is wrong with a quantized layer."""
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
def test_quantized_tensors_must_be_what_config_says(sources: dict[str, Path], how: str, tmp_path: Path) -> None:
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
def test_a_quantization_that_mlx_does_not_know(sources: dict[str, Path], settings: Any, tmp_path: Path) -> None:
    packed = convert(sources["llada"], tmp_path / "packed", Recipe(Quantization())).folder
    config = read(packed)
    write_json(packed / "config.json", config | {"quantization": config["quantization"] | settings})
    with pytest.raises(CheckpointError, match="MLX does not know"):
        convert(packed, tmp_path / "out")


def test_odd_but_harmless_sources(tmp_path: Path) -> None:
    """A null quantization, a card that is no YAML, remote code named at any depth: converted, and left behind."""
    source = write_llada(tmp_path / "source", quantization=None, sub={"auto_map": {"a": "b"}})
    (source / "README.md").write_text("---\nlicense: [mit\n---\n# Model\n")
    write_json(source / "generation_config.json", {"auto_map": {"a": "b"}, "steps": 8})
    out = convert(source, tmp_path / "out", Recipe(Quantization())).folder
    assert all("auto_map" not in path.read_text() for path in out.glob("*.json"))
    assert read(out, "generation_config.json") == {"eos_token_id": [257, 261], "steps": 8}
    assert "library_name: mlx" in (out / "README.md").read_text()


def test_a_link_in_the_place_of_the_hidden_folder_is_not_followed(sources: dict[str, Path], tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    (tmp_path / ".out.partial").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot be written"):
        convert(sources["llada"], tmp_path / "out")
    assert (precious / "thesis.txt").read_text() == "x"


def test_folders_made_on_the_way_go_with_a_failed_run(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError), new_folder(tmp_path / "p" / "q" / "out"):
        raise ConfigError("fails")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="inside the checkpoint"):
        convert(sources["llada"], sources["llada"] / "model-out")


def test_a_target_in_use_and_a_full_disk(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "link"):
        with pytest.raises(ConfigError, match="exists already"):
            convert(sources["llada"], tmp_path / name)
    with new_folder(tmp_path / "out"), pytest.raises(ConfigError, match="Another run"):
        convert(sources["llada"], tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ConfigError, match="make room"):
        convert(sources["llada"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "taken"]


def convert_with_little_room(source: Path, target: Path) -> None:
    """Files may grow to 30 kB: what a disk that fills up during the run looks like."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    sys.argv = ["d3mlx", "convert", "--hf-path", str(source), "--mlx-path", str(target)]
    run()


def convert_quantized(source: Path, target: Path) -> None:
    convert(source, target, Recipe(Quantization()), max_shard_bytes=2_000_000)


FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["d3mlx.convert", "tests.convert.test_convert", "transformers"])


def test_a_disk_that_fills_up(sources: dict[str, Path], tmp_path: Path) -> None:
    process = FORK.Process(target=convert_with_little_room, args=(sources["llada"], tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert list(tmp_path.iterdir()) == []


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL at 24 random moments: no target, at most one hidden folder, and the next run is not disturbed by it."""
    source, place = tmp_path / "source", tmp_path / "place"
    write_synthetic(source, config_of(layers=6, width=512, vocab=2048), 10**7)
    place.mkdir()
    for name in ("first", "whole"):
        began = time.perf_counter()
        process = FORK.Process(target=convert_quantized, args=(source, place / name))
        process.start()
        process.join()
        whole = time.perf_counter() - began
        assert process.exitcode == 0
    shutil.rmtree(place / "first")
    draw = random.Random(0)
    killed, left = 0, 0
    for _ in range(24):
        process = FORK.Process(target=convert_quantized, args=(source, place / "out"))
        process.start()
        process.join(draw.uniform(0, whole))
        process.kill()
        process.join()
        names = {path.name for path in place.iterdir()} - {"whole"}
        killed += process.exitcode != 0
        left += ".out.partial" in names
        assert len(names) <= 1
        if "out" in names:
            assert same(weights(place / "out"), weights(place / "whole"))
            shutil.rmtree(place / "out")
    assert killed >= 10 and left >= 5
    (place / ".out.partial").mkdir(exist_ok=True)
    (place / ".out.partial" / "model-00009-of-00009.safetensors").write_bytes(b"half")
    convert_quantized(source, place / "out")
    assert {path.name for path in place.iterdir()} == {"whole", "out"}
    assert same(weights(place / "out"), weights(place / "whole"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_clean_up(number: int, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_synthetic(source, config_of(layers=12, width=1024, vocab=4096), 10**8)
    command = [str(Path(sys.executable).with_name("d3mlx")), "convert", "--hf-path", str(source), "--dtype", "float32"]
    process = subprocess.Popen([*command, "--mlx-path", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".out.partial/*")):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (128 + number, "Interrupted.\n" if number == signal.SIGINT else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_memory_stays_within_three_tensors_and_a_shard(tmp_path: Path) -> None:
    """A checkpoint several times larger than what converting it may take."""
    source = tmp_path / "source"
    largest = write_synthetic(source, config_of(layers=6, width=1024, vocab=16384), 10**8)
    idle = peak_of("info", str(source))
    shard = 16
    for options in (["-q"], ["--dtype", "float16"], ["-q", "--q-mode", "nvfp4"]):
        peak = peak_of_convert(source, tmp_path / "out", *options, "--max-shard-size", f"{shard}MB")
        # The rest is what importing the converter takes beyond what `info` imports.
        assert peak - idle < 3 * largest + max(shard * 10**6, largest) + 40_000_000, options
        shutil.rmtree(tmp_path / "out")


def test_the_command_line(sources: dict[str, Path], tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("d3mlx")), "convert", "--hf-path", str(sources["llada"])]
        return subprocess.run(
            [*command, "--mlx-path", str(tmp_path / "out"), *arguments], capture_output=True, text=True
        )

    done = call("--q-bits", "8")
    assert (done.returncode, done.stdout) == (1, "") and "add --quantize" in done.stderr
    assert call("--max-shard-size", "5").returncode == 2
    done = call("-q", "--q-bits", "8", "--max-shard-size", "1MB")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Wrote {tmp_path / 'out'}: ") and "bits per weight" in done.stdout
    assert open_checkpoint(tmp_path / "out").quantization == {"bits": 8, "group_size": 64, "mode": "affine"}
    assert "--model out" in (tmp_path / "out" / "README.md").read_text()
    done = call()
    assert done.returncode == 1 and "exists already" in done.stderr


def test_upload(sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = MagicMock()
    monkeypatch.setattr("d3mlx.convert.card.HfApi", lambda: api)
    (sources["llada"] / "README.md").write_text("---\nlicense: mit\ntags: [text]\n---\n# Original\n")
    folder = convert(sources["llada"], tmp_path / "out", name="me/llada").folder
    card = (folder / "README.md").read_text()
    assert "license: mit" in card and "library_name: mlx" in card and "--model me/llada" in card
    api.create_repo.return_value = "https://huggingface.co/me/llada"
    assert upload(folder, "me/llada") == "https://huggingface.co/me/llada"
    assert api.upload_folder.call_args.kwargs["folder_path"] == folder
    api.upload_folder.side_effect = RuntimeError("quota\nmore")
    with pytest.raises(CheckpointError, match=r"is in .*out, but its upload to me/llada failed: quota"):
        upload(folder, "me/llada")
    api.whoami.side_effect = LocalTokenNotFoundError("no token")
    with pytest.raises(ConfigError, match="hf auth login"):
        check_login("me/llada")
