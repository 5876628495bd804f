"""Loading of folders like the published ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import errors
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model, save_model

from d3mlx import generate, load
from d3mlx import load as load_checkpoint
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import EMBEDDED, TEACHER, memory_limit
from d3mlx.cli.info import describe
from d3mlx.errors import CheckpointError, ConfigError, MemoryLimitError, PromptError
from d3mlx.prompt import encode
from tests.builders import (
    LLADA_CONFIG,
    byte_tokenizer,
    llada_weights,
    write_dream,
    write_json,
    write_llada,
)

SILENT = """
import socket, sys, warnings
def refuse(*_): raise SystemExit("a folder on disk needs no network")
socket.socket.connect = refuse
warnings.simplefilter("error")
from d3mlx import generate, load
for folder in sys.argv[1:]:
    model, tokenizer = load(folder)
    result = generate(model, tokenizer, [{"role": "user", "content": "héllo 你好"}], max_tokens=8)
    assert result.stats.forwards
"""


@pytest.mark.parametrize("shards", [1, 3])
def test_published_folders_load_without_questions_or_output(tmp_path: Path, shards: int) -> None:
    """Standard input is closed, so no question can be answered. Nothing is printed, and no code of the folder runs."""
    folders = [write_llada(tmp_path / "llada", shards), write_dream(tmp_path / "dream", shards)]
    done = subprocess.run(
        [sys.executable, "-c", SILENT, *map(str, folders)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_prompt_is_text_or_ids_or_messages(tmp_path: Path) -> None:
    _, llada = load(str(write_llada(tmp_path / "llada")))
    for ids in (np.array([3, 4]), mx.array([3, 4]), (3, 4)):
        assert encode(llada, ids) == [3, 4]  # type: ignore[arg-type]
    mixed: list[Any] = [3, {"role": "user", "content": "hi"}]
    for wrong in ("", [], b"hi", 5, [{"role": "user", "content": None}], [{"content": "hi"}], [3, "hi"], mixed):
        with pytest.raises(PromptError):
            encode(llada, wrong)  # type: ignore[arg-type]


def test_bundled_models_have_names() -> None:
    for name, folder in {"embedded": EMBEDDED, "teacher": TEACHER}.items():
        assert fetch(name).folder == Path(folder)
    with pytest.raises(ConfigError, match="revision"):
        fetch("teacher", "main")


def test_chat_templates(tmp_path: Path) -> None:
    _, llada = load(str(write_llada(tmp_path / "llada")))
    turn = [{"role": "user", "content": " hi \n"}]
    text = "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    text += "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert llada.decode(encode(llada, turn)) == text
    _, dream = load(str(write_dream(tmp_path / "dream")))
    default = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    question = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    turn = [{"role": "user", "content": "hi"}]
    assert dream.decode(encode(dream, turn)) == default + question
    system = {"role": "system", "content": "Be brief."}
    assert dream.decode(encode(dream, [system, *turn])) == "<|im_start|>system\nBe brief.<|im_end|>\n" + question
    assert (sorted(llada.eos_token_ids), sorted(dream.eos_token_ids)) == ([257, 261], [256, 258])


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_text_is_decoded_unchanged_token_by_token(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    _, tokenizer = load(str(write(tmp_path / "model")))
    text = "naïve 你好 🦙\n  x"
    stream = tokenizer.detokenizer
    pieces = []
    for token in encode(tokenizer, text):
        stream.add_token(token)
        pieces.append(stream.last_segment)
    stream.finalize()
    assert "".join([*pieces, stream.last_segment]) == text
    assert "�" not in "".join(pieces)


def test_dream_uses_the_merges_of_its_files(tmp_path: Path) -> None:
    _, tokenizer = load(write_dream(tmp_path / "dream", merges=("h e", "l l", "he ll", "Ġ w", "Ã ©")))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("hello w1", add_special_tokens=False)) == [
        *("hell", "o", "Ġw", "1")
    ]
    # A letter and its accent become one character, as in the published tokenizer.
    assert tokenizer.encode("e\u0301", add_special_tokens=False) == [260]
    assert sorted(tokenizer.eos_token_ids) == [261, 263]


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_special_tokens_are_not_text(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    model, tokenizer = load(write(tmp_path / "model"))
    assert sorted(tokenizer.all_special_ids) == list(range(256, model.args.vocab_size))


def test_a_base_model_without_turn_tokens_has_no_template(tmp_path: Path) -> None:
    folder = write_llada(tmp_path / "model")
    byte_tokenizer(["<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"]).save(str(folder / "tokenizer.json"))
    _, tokenizer = load(folder)
    assert tokenizer.chat_template is None
    assert tokenizer.eos_token_ids == {257}


def test_a_template_in_the_folder_replaces_the_default(tmp_path: Path) -> None:
    folder = write_llada(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    _, tokenizer = load(folder)
    assert tokenizer.decode(encode(tokenizer, [{"role": "user", "content": "hi"}])) == "hi!"


def test_all_end_tokens_of_the_configs(tmp_path: Path) -> None:
    folder = write_llada(tmp_path / "model", eos_token_id=[257, 259])
    write_json(folder / "generation_config.json", {"eos_token_id": [256]})
    _, tokenizer = load(folder)
    assert tokenizer.eos_token_ids == {256, 257, 259, 261}


def test_shards_and_one_file_give_the_same_model(tmp_path: Path) -> None:
    whole, _ = load(write_dream(tmp_path / "whole"))
    parts, _ = load(write_dream(tmp_path / "parts", shards=3), lazy=True)
    ids = mx.arange(20)[None]
    # With lazy weights, projections are not joined, so a product may round in another way.
    assert mx.allclose(whole.logits(whole.hidden(ids)), parts.logits(parts.hidden(ids)), atol=1e-5)


def test_quantized_mlx_folder(tmp_path: Path) -> None:
    """The weights have llama-style names and a quantization field, as mlx-community's. They are float32 on a CPU."""
    source = write_llada(tmp_path / "source")
    plain, _ = load(str(source))
    model, _ = load(str(source))
    quantized, config = quantize_model(model, dict(LLADA_CONFIG), 32, 8)  # type: ignore[arg-type]
    target = tmp_path / "target"
    save_model(target, quantized)
    write_json(target / "config.json", config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((source / name).read_bytes())
    again, _ = load(str(target))
    ids = mx.arange(40)[None]
    close = np.abs(np.array(again.logits(again.hidden(ids)) - plain.logits(plain.hidden(ids))))
    assert close.mean() < 0.1
    if mx.default_device() == mx.Device(mx.cpu):
        assert {value.dtype for _, value in tree_flatten(again.parameters())} == {mx.float32}  # type: ignore[attr-defined]


def test_end_tokens_of_both_kinds_end_an_answer(tmp_path: Path) -> None:
    model, tokenizer = load(str(write_llada(tmp_path / "llada")))
    result = generate(model, tokenizer, "x", max_tokens=12)
    assert not {257, 261} & set(result.tokens[:-1])


def test_hub_cache_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in the cache loads without the hub, also by the name of a branch."""
    commit = "0123456789" * 4
    repo = tmp_path / "models--some--model"
    write_llada(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "draft").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model, _ = load("some/model", revision="draft")
    assert model.family == "llada"
    with pytest.raises(CheckpointError, match="cache"):
        load("some/model", revision="main")


@pytest.mark.parametrize(
    ("error", "culprit"),
    [
        (errors.GatedRepoError("refused", response=MagicMock()), "is gated"),
        (errors.RepositoryNotFoundError("refused", response=MagicMock()), "nor a model on the Hub"),
        (errors.RevisionNotFoundError("refused", response=MagicMock()), "no revision 'draft'"),
        (errors.HfHubHTTPError("refused", response=MagicMock()), "could not be downloaded"),
        (RuntimeError("timed out"), "timed out"),
        (OSError(28, "No space left on device"), "is full"),
        (PermissionError(13, "Permission denied"), "no permission"),
    ],
)
def test_refusals_of_the_hub(error: Exception, culprit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=culprit) as caught:
        load("some/model", revision="draft")
    assert "\n" not in str(caught.value)


def test_names_that_are_not_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, culprit in [
        (str(tmp_path / "file"), "is a file"),
        (str(tmp_path / "absent"), "neither a folder"),
        ("nowhere", "neither a folder nor a Hugging Face id"),
        ("some/model", "cache"),
    ]:
        with pytest.raises(CheckpointError, match=culprit) as caught:
            load_checkpoint(name)
        assert "\n" not in str(caught.value)


def test_adapters(tmp_path: Path) -> None:
    folder = write_llada(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="adapter_config"):
        load_checkpoint(str(folder), adapter_path=str(tmp_path / "empty"))
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    write_json(
        adapters / "adapter_config.json",
        {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 2, "dropout": 0.0, "scale": 4.0}},
    )
    width = LLADA_CONFIG["d_model"]
    key = "model.layers.1.self_attn.q_proj.lora_"
    deltas = {f"{key}a": mx.ones((width, 2)) * 0.1, f"{key}b": mx.ones((2, width)) * 0.1}
    mx.save_safetensors(str(adapters / "adapters.safetensors"), deltas)
    plain, _ = load(str(folder))
    tuned, _ = load(str(folder), adapter_path=str(adapters))
    ids = mx.arange(10)[None]
    assert not mx.allclose(plain.hidden(ids), tuned.hidden(ids), atol=1e-4)

    misfits = deltas | {f"{key}a": mx.ones((width, 3))}
    mx.save_safetensors(str(adapters / "adapters.safetensors"), misfits)
    with pytest.raises(CheckpointError, match=f"{key}a") as caught:
        load(folder, adapter_path=adapters)
    assert "\n" not in str(caught.value)
    path = adapters / "adapters.safetensors"
    for made, said in [
        ({f"{key}a": deltas[f"{key}a"]}, f"contains {key}a, but no {key}b"),
        ({name: value.astype(mx.int32) for name, value in deltas.items()}, "as I32"),
    ]:
        mx.save_safetensors(str(path), made)
        with pytest.raises(CheckpointError, match=said):
            load(folder, adapter_path=adapters)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"adapters\.safetensors is truncated or damaged. Download"):
        load(folder, adapter_path=adapters)
    mx.save_safetensors(str(path), deltas)
    for changed, said in [
        ({"num_layers": "2"}, "num_layers must be a whole number, not '2'"),
        ({"lora_parameters": []}, "lora_parameters must be an object"),
        ({"lora_parameters": {"rank": 2}}, "no scale"),
        ({"lora_parameters": {"rank": 2, "scale": None}}, "scale must be a number up to 1,000,000,000, not None"),
    ]:
        write_json(adapters / "adapter_config.json", {"num_layers": 2, "lora_parameters": {}} | changed)
        with pytest.raises(CheckpointError, match=said):
            load(folder, adapter_path=adapters)
    write_json(adapters / "adapter_config.json", {"lora_parameters": {}})
    with pytest.raises(CheckpointError, match="no num_layers"):
        load(folder, adapter_path=adapters)


def test_a_model_too_large_for_this_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_llada(tmp_path / "model")
    assert memory_limit() > 1e8
    # 140 thousand float32 weights take 0.56 MB; at 8 bits and with their scales, they take 150 kB.
    monkeypatch.setattr("d3mlx.checkpoints.loader.memory_limit", lambda: 170_000)
    with pytest.raises(MemoryLimitError, match="at most 8 bits"):
        load_checkpoint(str(folder))
    monkeypatch.setattr("d3mlx.checkpoints.loader.memory_limit", lambda: 10)
    with pytest.raises(MemoryLimitError, match="No quantized version"):
        load_checkpoint(str(folder))


def test_help_imports_no_model_library() -> None:
    """`d3mlx --help` and errors about options do not need MLX or transformers."""
    code = (
        "import sys, d3mlx.cli.main; print(*{'mlx.core', 'mlx_lm', 'transformers', 'huggingface_hub'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_folder_without_a_tokenizer_can_be_described(tmp_path: Path) -> None:
    folder = write_llada(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    facts = describe(open_checkpoint(folder))
    weights = sum(value.size for value in llada_weights(LLADA_CONFIG).values())
    assert (facts["parameters"], facts["size_on_disk"], facts["tokenizer"]) == (weights, 4 * weights, False)
    assert (facts["end_ids"], facts["mask_id"], facts["architecture"]) == ([257], 258, "LLaDAModelLM")
