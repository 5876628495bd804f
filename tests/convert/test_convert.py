"""Converted folders equal the results of mlx-lm, and all tools can read them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import dequantize_model, load_tokenizer, quantize_model

from d3mlx import generate, load
from d3mlx.checkpoints.loader import TEACHER
from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.data.stories.stories import problem
from d3mlx.errors import ConfigError
from d3mlx.prompt import encode
from tests.builders import write_llada
from tests.convert.folders import IDS, WRITERS, original, read, same, weights


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
"""Largest allowed relative error (Euclidean norm) of the logits of the bundled teacher."""


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=lambda q: f"{q.mode}-{q.bits}-{q.recipe}")
def test_quantized_weights_are_those_of_mlx_lm(
    sources: dict[str, Path], quantization: Quantization, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights and config are identical, and nothing is printed."""
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


def test_quantized_logits_are_close(tmp_path: Path) -> None:
    source = convert(TEACHER, tmp_path / "source", Recipe(dequantize=True, dtype="float32")).folder
    model, tokenizer = load(source)
    question = [{"role": "user", "content": problem(0, "held-out").question}]
    ids = mx.array([[*encode(tokenizer, question), *([model.args.mask_token_id] * 32)]])
    plain = model(ids)
    for name, (quantization, bound) in ERRORS.items():
        out = convert(source, tmp_path / name, Recipe(quantization)).folder
        error = float(mx.linalg.norm(load(out)[0](ids) - plain) / mx.linalg.norm(plain))
        assert 0 < error < bound, name


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4", "mxfp8"])
def test_dequantized_weights_are_those_of_the_quantized_model(
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
    """The dtype is that of the recipe, or of the source's config.json, and the new config.json names it."""
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


def test_shards_contain_at_most_their_limit_or_one_layer(sources: dict[str, Path], tmp_path: Path) -> None:
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


def test_layers_with_an_unsuitable_width_are_named(tmp_path: Path) -> None:
    source = write_llada(tmp_path / "ff", mlp_hidden_size=96)
    words = r"layers\.0\.mlp\.down_proj \(and 1 more layers\) has rows of 96 weights.* use groups of 32"
    with pytest.raises(ConfigError, match=words):
        convert(source, tmp_path / "out", Recipe(Quantization()))
    assert convert(source, tmp_path / "out", Recipe(Quantization(group_size=32))).bits_per_weight < 7
