"""Every command on folders like the published ones."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_config, load_model

from d3mlx import Generation, generate, load
from d3mlx.bench.cost import cost
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import lazy_model
from d3mlx.errors import CheckpointError
from d3mlx.models import get_model_classes, missing_fields
from tests.builders import DREAM_CONFIG, LLADA_CONFIG, dream_weights, llada_weights, write_weights
from tests.replicas import (
    REPLICAS,
    SEED_SPECIAL,
    change_config,
    diffucoder,
    folder_name,
    illada_folder,
    mlx_llada,
    sdar_chat,
    stable_diffcoder_folder,
)

PARTS = ("weight", "scales", "biases")
BLOCK_DECODERS = {"sdar", "fast-dllm-v2", "llada2", "stable-diffcoder"}
ROW = {"prompt": "2+2", "completion": "4"}


@pytest.mark.parametrize("name", REPLICAS)
def test_every_command_runs(d3mlx: Any, tmp_path: Path, name: str) -> None:
    folder = REPLICAS[name](tmp_path / folder_name(name))
    facts = json.loads(d3mlx("info", str(folder), "--json").out)
    families = {"LLaDA2": "llada2_moe", "iLLaDA": "illada", "LLaDA": "llada", "SDAR": "sdar"}
    families |= {"Fast_dLLM": "fast_dllm_v2", "DiffCoder": "stable_diffcoder"}
    assert facts["family"] == next((family for part, family in families.items() if part in name), "dream")
    assert facts["tokenizer"] and facts["chat_template"]
    predicted = json.loads(d3mlx("bench", "--roofline", "M4", "--model", str(folder), "--json", "-").out)["cost"]
    expected = cost(lazy_model(open_checkpoint(fetch(str(folder)))), 512)
    assert predicted == json.loads(json.dumps(asdict(expected)))
    done = d3mlx("generate", "hello", "--model", str(folder), "--max-tokens", "8")
    assert (done.status, done.err.count("Error")) == (0, 0), done.err
    plain = tmp_path / "plain"
    options = ["--dequantize"] if facts["quantization"] else ["--dtype", "float32"]
    done = d3mlx("convert", "--hf-path", str(folder), "--mlx-path", str(plain), *options)
    assert done.status == 0, done.err
    assert json.loads(d3mlx("info", str(plain), "--json").out)["quantization"] is None
    ids = mx.arange(20)[None]
    before, after = load(folder)[0], load(plain)[0]
    assert np.allclose(before.logits(before.hidden(ids)), after.logits(after.hidden(ids)), atol=0.05)
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps(ROW) + "\n")
    run = ["--data", str(data), "--objective", "sft", "--iters", "1", "--adapter-path", str(tmp_path / "adapters")]
    done = d3mlx("distill", "--model", str(folder), *run, "--max-length", "64")
    if facts["block_size"] is None:
        assert done.status == 0, done.err
        return
    teacher = d3mlx("trajectories", str(tmp_path / "teacher"), "--model", str(folder), "--limit", "1")
    for refused in (done, teacher):
        assert (refused.status, refused.err.count("\n")) == (1, 1)
        assert "need a model with bidirectional attention" in refused.err
    assert not (tmp_path / "adapters").exists() and not (tmp_path / "teacher").exists()


@pytest.mark.parametrize("name", ["JetLM/SDAR-8B-Chat-b32", "Efficient-Large-Model/Fast_dLLM_v2_7B"])
def test_block_causal_folders(d3mlx: Any, tmp_path: Path, name: str) -> None:
    """The block size comes from the config or the name, end tokens from generation_config.json, and no code runs."""
    folder = REPLICAS[name](tmp_path / folder_name(name))
    facts = json.loads(d3mlx("info", str(folder), "--json", "--length", "100").out)
    assert (facts["attention"], facts["block_size"], facts["end_ids"]) == ("block-causal", 32, [256, 258])
    # Small models are float32 on a CPU: keys and values of two layers with two heads, and a hidden row.
    heads = {"sdar": 64, "fast_dllm_v2": 16}[facts["family"]]
    assert facts["bytes_per_position"] == 4 * (2 * 2 * 2 * heads + 64)
    assert facts["memory_with_cache"] == facts["memory_to_load"] + 100 * facts["bytes_per_position"]
    assert "block-causal, blocks of 32 tokens" in d3mlx("info", str(folder)).out
    assert "The maximum of this model is" in d3mlx("info", str(folder), "--length", "10000000").err
    _, tokenizer = load(folder)
    assert tokenizer.eos_token_ids == {256, 258}
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    run = ["generate", "hello", "--model", str(folder), "--max-tokens", "5", "--no-early-stop"]
    events = [json.loads(line) for line in d3mlx(*run, "--json").out.splitlines()]
    assert len(events[-1]["tokens"]) == 5
    assert d3mlx(*run, "--decoder", "selective").err.endswith(f"Use decoder {DEFAULTS[facts['family']]}.\n")
    converted = tmp_path / "converted"
    for mode, bits in (("affine", 4), ("affine", 8), ("mxfp4", 4)):
        options = ["-q", "--q-bits", str(bits), "--q-mode", mode, "--q-group-size", "32"]
        done = d3mlx("convert", "--hf-path", str(folder), "--mlx-path", str(converted), *options)
        assert done.status == 0, done.err
        config = load_config(converted)
        assert config.get("block_size", config.get("bd_size")) == 32
        loaded, _ = load_model(converted, get_model_classes=get_model_classes)
        assert loaded.args.block_size == 32
        assert json.loads(d3mlx("info", str(converted), "--json").out)["block_size"] == 32
        shutil.rmtree(converted)
    out = ["--count", "1", "--max-tokens", "4", "--out", str(tmp_path / "runs"), "--json", "-"]
    report = json.loads(d3mlx("eval", "--model", str(folder), *out).out)
    assert report["policies"]["default"]["cache"]["fused"] == (facts["family"] == "sdar")
    rows = ["--seconds", "1", "--row-counts", "1,8", "--context", "16", "--max-tokens", "4", "--json", "-"]
    assert set(json.loads(d3mlx("bench", "--model", str(folder), *rows).out)["decoding"]) == BLOCK_DECODERS


@pytest.mark.parametrize(
    ("write", "family", "decoders"),
    [
        (stable_diffcoder_folder, "stable_diffcoder", BLOCK_DECODERS),
        (illada_folder, "illada", {"selective", "d3llm", "fast-dllm", "vanilla"}),
    ],
)
def test_folders_in_the_style_of_llama(d3mlx: Any, tmp_path: Path, write: Any, family: str, decoders: set[str]) -> None:
    """The architecture decides the family, the mask token is added, and no code runs."""
    folder = write(tmp_path / "model", max_position_embeddings=4096)
    causal = family == "stable_diffcoder"
    facts = json.loads(d3mlx("info", str(folder), "--json").out)
    assert (facts["family"], facts["block_size"]) == (family, 4 if causal else None)
    # Padding ends an answer too.
    assert (facts["end_ids"], facts["mask_id"]) == ([1, 2], 5)
    _, tokenizer = load(folder)
    chat = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    begin, _, end = SEED_SPECIAL[:3]
    assert text == f"{begin}user\nhi{end}{begin}assistant\n"
    run = ["generate", "hello", "--model", str(folder), "--max-tokens", "6", "--no-early-stop", "--json"]
    events = [json.loads(line) for line in d3mlx(*run).out.splitlines()]
    assert 1 <= len(events[-1]["tokens"]) <= 6
    for other in ({"model_type": "llama"}, {"model_type": "other"}):
        assert load(write(tmp_path / "other", **other))[0].family == family
    (tmp_path / "holes.txt").write_text("a [MASK:3] b")
    filled = d3mlx("infill", str(tmp_path / "holes.txt"), "--model", str(folder))
    assert (filled.status == 0) != causal, filled.err
    converted = tmp_path / "converted"
    for mode, bits in (("affine", 4), ("affine", 8), ("mxfp4", 4)):
        options = ["-q", "--q-bits", str(bits), "--q-mode", mode, "--q-group-size", "32"]
        done = d3mlx("convert", "--hf-path", str(folder), "--mlx-path", str(converted), *options)
        assert done.status == 0, done.err
        config = load_config(converted)
        assert (config["mask_token_id"], config["architectures"]) == (5, load_config(folder)["architectures"])
        loaded, _ = load_model(converted, get_model_classes=get_model_classes)
        assert loaded.family == family and ("lm_head" in loaded) == causal
        shutil.rmtree(converted)
    out = ["--count", "1", "--max-tokens", "4", "--out", str(tmp_path / "runs"), "--json", "-"]
    report = json.loads(d3mlx("eval", "--model", str(folder), *out).out)
    assert report["policies"]["default"]["cache"].get("fused", False) == causal
    rows = ["--seconds", "1", "--row-counts", "1,8", "--context", "16", "--max-tokens", "4", "--json", "-"]
    assert set(json.loads(d3mlx("bench", "--model", str(folder), *rows).out)["decoding"]) <= decoders


@pytest.mark.parametrize(
    ("write", "changes", "text"),
    [
        (stable_diffcoder_folder, {"architectures": ["LlamaForCausalLM"]}, "'llama' and architecture 'LlamaForCausal"),
        (stable_diffcoder_folder, {"architectures": ...}, "model_type 'llama'. d3mlx runs only"),
        (stable_diffcoder_folder, {"rope_theta": ...}, "has no rope_theta"),
        (stable_diffcoder_folder, {"attention_bias": True}, "attention_bias = True"),
        (stable_diffcoder_folder, {"block_size": 0}, "block_size = 0"),
        (stable_diffcoder_folder, {"num_experts": 8}, "num_experts = 8"),
        (illada_folder, {"layer_norm_eps": 1e-5}, "layer_norm_eps = 1e-05"),
        (illada_folder, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
        (illada_folder, {"architectures": ["ILLaDAMoE"], "hidden_size": ...}, "names the architecture ILLaDAMoE"),
    ],
)
def test_other_variants_are_refused(tmp_path: Path, write: Any, changes: dict[str, Any], text: str) -> None:
    folder = write(tmp_path / "model")
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=re.escape(text)):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "name",
    [
        "JetLM/SDAR-4B-Chat",
        "Efficient-Large-Model/Fast_dLLM_v2_7B",
        "ByteDance-Seed/Stable-DiffCoder-8B-Instruct",
    ],
)
def test_the_second_turn_of_a_chat_reuses_the_first(tmp_path: Path, name: str) -> None:
    model, tokenizer = load(REPLICAS[name](tmp_path / "model"))
    chat = [{"role": "user", "content": "What is the sum of two and two, and why?"}]
    first = Generation(model, tokenizer, chat, max_tokens=12)
    list(first)
    chat += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And three?"}]
    fresh = generate(model, tokenizer, chat, max_tokens=12)
    reused = generate(model, tokenizer, chat, max_tokens=12, approximate_cache=first.request.cache)
    assert (reused.text, reused.tokens) == (fresh.text, fresh.tokens)
    assert fresh.stats.prefill_rows - reused.stats.prefill_rows >= first.canvas.prompt_length // 32 * 32 > 0


DEFAULTS = {"sdar": "sdar", "fast_dllm_v2": "fast-dllm-v2"}


def test_published_fields_that_are_missing(tmp_path: Path) -> None:
    """A block size comes from the config, else from the name of the repository or its folder, else it is 4."""
    for names, size in (
        (["a/SDAR-4B-Chat"], 4),
        (["x", "LightningRL-8B-b32-GSM8K"], 32),
        (["a/SDAR-8B-Chat-b8"], 8),
        (["SDAR-b0"], 4),
    ):
        assert missing_fields({"model_type": "sdar"}, names) == {"block_size": size}
        assert missing_fields({"model_type": "sdar", "block_size": 16}, names) == {}
    assert missing_fields({"model_type": "Fast_dLLM_Qwen"}, []) == {"mask_token_id": 151665}
    assert missing_fields({"model_type": "Dream"}, ["a-b8"]) == {}
    assert missing_fields({"model_type": "illada"}, []) == {"mask_token_id": 5}
    assert missing_fields({"model_type": "illada", "mask_token_id": 7}, []) == {}
    cached = tmp_path / "models--JetLM--SDAR-1.7B-Chat-b16" / "snapshots" / "0123abcd"
    assert open_checkpoint(REPLICAS["JetLM/SDAR-8B-Chat-b32"](cached)).args.block_size == 16
    with pytest.raises(CheckpointError, match="block_size = 0"):
        open_checkpoint(sdar_chat(tmp_path / "none", block_size=0))
    with pytest.raises(CheckpointError, match="attention_bias = True"):
        open_checkpoint(sdar_chat(tmp_path / "bias", attention_bias=True))


@pytest.mark.parametrize("bits", [None, 8])
def test_the_third_layout_is_the_same_model(tmp_path: Path, bits: int | None) -> None:
    model: Any = load(mlx_llada(tmp_path / "model", bits))[0]
    expected = llada_weights(LLADA_CONFIG)
    close = 1e-3 if bits is None else 0.02
    for ours, theirs in (
        (model.model.layers[1].mlp.gate_proj.weight, "model.transformer.blocks.1.ff_proj.weight"),
        (model.model.layers[0].mlp.down_proj.weight, "model.transformer.blocks.0.ff_out.weight"),
        (model.model.layers[0].self_attn.o_proj.weight, "model.transformer.blocks.0.attn_out.weight"),
        (model.lm_head.weight, "model.transformer.ff_out.weight"),
        (model.model.embed_tokens.weight, "model.transformer.wte.weight"),
    ):
        assert np.allclose(ours, expected[theirs], atol=close), theirs


@pytest.mark.parametrize("layer", ["model.layers.0.q_proj", "model.layers.0.self_attn.q_proj"])
def test_a_layer_of_other_bits_under_either_name(tmp_path: Path, layer: str) -> None:
    """The name in `quantization` is that of the file or that of the model."""
    folder = mlx_llada(tmp_path / "model", 4)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    original = llada_weights(LLADA_CONFIG)["model.transformer.blocks.0.q_proj.weight"]
    parts = mx.quantize(original.astype(mx.float16), 32, 8)
    weights |= {f"model.layers.0.q_proj.{part}": value for part, value in zip(PARTS, parts, strict=True)}
    write_weights(folder, weights)
    settings = load_config(folder)["quantization"]
    change_config(folder, quantization=settings | {layer: {"group_size": 32, "bits": 8}})
    model: Any = load(folder)[0]
    assert np.allclose(model.model.layers[0].self_attn.q_proj.weight, original, atol=0.01)


def test_a_layer_that_is_not_as_quantized_as_it_says(tmp_path: Path) -> None:
    folder = diffucoder(tmp_path / "model", 8)
    settings = load_config(folder)["quantization"]
    change_config(folder, quantization=settings | {"model.norm": True})
    with pytest.raises(CheckpointError, match=r"Layer model\.norm in .* is not quantized"):
        load(folder)


def test_modules_that_are_true_or_false(tmp_path: Path, d3mlx: Any) -> None:
    """True is the setting of the whole model; false is a layer in floats."""
    model: Any = load(diffucoder(tmp_path / "model", 8))[0]
    expected = dream_weights(DREAM_CONFIG)["model.layers.0.mlp.up_proj.weight"]
    assert np.allclose(model.model.layers[0].mlp.up_proj.weight, expected, atol=0.02)
    target = tmp_path / "again"
    assert d3mlx("convert", "--hf-path", str(tmp_path / "model"), "--mlx-path", str(target)).status == 0
    settings = json.loads((target / "config.json").read_text())["quantization"]
    assert (settings["bits"], settings["model.norm"], "lm_head" in settings) == (8, False, False)


def test_what_pads_an_answer_ends_it(tmp_path: Path) -> None:
    _, tokenizer = load(diffucoder(tmp_path / "model"))
    assert tokenizer.eos_token_ids == {256, 258, 261}
    assert tokenizer.convert_ids_to_tokens(261) == "<|dlm_pad|>"
