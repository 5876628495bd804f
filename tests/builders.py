"""Tiny checkpoints with the key names, config fields, `auto_map` and tokenizer files of the published folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from d3mlx.models import dream, llada

LLADA_SPECIAL = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|mdm_mask|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
DREAM_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())

LLADA_CONFIG: dict[str, Any] = {
    "activation_type": "silu",
    "alibi": False,
    "architectures": ["LLaDAModelLM"],
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
    },
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 64,
    "embedding_size": 262,
    "eos_token_id": 257,
    "layer_norm_type": "rms",
    "mask_token_id": 258,
    "max_sequence_length": 512,
    "mlp_hidden_size": 128,
    "model_type": "llada",
    "n_heads": 4,
    "n_kv_heads": 4,
    "n_layers": 2,
    "pad_token_id": 257,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_theta": 500000.0,
    "vocab_size": 262,
    "weight_tying": False,
}
DREAM_CONFIG: dict[str, Any] = {
    "architectures": ["DreamModel"],
    "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
    "bos_token_id": 256,
    "eos_token_id": 256,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "mask_token_id": 260,
    "max_position_embeddings": 512,
    "model_type": "Dream",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 256,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 261,
}
FORBIDDEN = "raise SystemExit('code of a checkpoint was run')\n"


def llada_weights(config: dict[str, Any], seed: int = 0) -> dict[str, mx.array]:
    """Return random weights with the original names."""
    width, ff, rows = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    kv = width // config["n_heads"] * config["n_kv_heads"]
    shapes = {"model.transformer.wte.weight": (rows, width), "model.transformer.ff_out.weight": (rows, width)}
    for i in range(config["n_layers"]):
        block = f"model.transformer.blocks.{i}"
        shapes |= {f"{block}.{name}.weight": (width, width) for name in ("q_proj", "attn_out")}
        shapes |= {f"{block}.{name}.weight": (kv, width) for name in ("k_proj", "v_proj")}
        shapes |= {f"{block}.{name}.weight": (ff, width) for name in ("ff_proj", "up_proj")}
        shapes[f"{block}.ff_out.weight"] = (width, ff)
    weights = random_weights(shapes, seed)
    norms = [f"blocks.{i}.{name}" for i in range(config["n_layers"]) for name in ("attn_norm", "ff_norm")]
    return weights | {f"model.transformer.{name}.weight": mx.ones(width) for name in (*norms, "ln_f")}


def dream_weights(config: dict[str, Any], seed: int = 0) -> dict[str, mx.array]:
    """Return random weights with the original names, which are also those of this runtime."""
    model = dream.Model(dream.ModelArgs.from_dict(config))
    from mlx.utils import tree_flatten

    return random_weights({name: value.shape for name, value in tree_flatten(model.parameters())}, seed)


def random_weights(shapes: dict[str, Any], seed: int) -> dict[str, mx.array]:
    mx.random.seed(seed)
    weights = {name: mx.random.normal(shape) * 0.3 for name, shape in sorted(shapes.items())}
    mx.eval(weights)
    return weights


def byte_tokenizer(special: list[str], first: bool = False) -> Tokenizer:
    """Return a tokenizer of bytes. first: the special tokens have the lowest ids, otherwise the highest."""
    pieces = [*special, *BYTES] if first else BYTES
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1))


def write_weights(folder: Path, weights: dict[str, mx.array], shards: int = 1) -> None:
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
        return
    names = sorted(weights)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: weights[name] for name in names[i::shards]}
        mx.save_safetensors(str(folder / file), part, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def write_llada(folder: Path, shards: int = 1, **changes: Any) -> Path:
    """Write a folder like GSAI-ML/LLaDA-8B-Instruct and return it. changes: to the fields of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**LLADA_CONFIG, **changes}
    write_json(folder / "config.json", config)
    write_weights(folder, llada_weights(config), shards)
    byte_tokenizer(LLADA_SPECIAL).save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    for name in ("configuration_llada.py", "modeling_llada.py"):
        (folder / name).write_text(FORBIDDEN)
    return folder


def write_dream(folder: Path, shards: int = 1, merges: tuple[str, ...] = (), **changes: Any) -> Path:
    """Write a folder like Dream-org/Dream-v0-Instruct-7B and return it. Its tokenizer class is not in transformers.

    merges: pairs such as "h e". Each takes the next id after the bytes, and moves the special tokens up by one.
    changes: to the fields of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moved = {name: value + len(merges) for name, value in DREAM_CONFIG.items() if name.endswith(("_id", "vocab_size"))}
    config = {**DREAM_CONFIG, **moved, **changes}
    pieces = [*BYTES, *(merge.replace(" ", "") for merge in merges)]
    write_json(folder / "config.json", config)
    write_weights(folder, dream_weights(config), shards)
    write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    added = {
        str(len(pieces) + i): {"content": text, "special": True, "lstrip": False, "rstrip": False, "normalized": False}
        for i, text in enumerate(DREAM_SPECIAL)
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": added,
            "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
            "bos_token": "<|beginoftext|>",
            "eos_token": "<|endoftext|>",
            "mask_token": "<|mask|>",
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "DreamTokenizer",
        },
    )
    write_json(folder / "generation_config.json", {"eos_token_id": len(pieces), "mask_token_id": None, "steps": 512})
    for name in ("configuration_dream.py", "modeling_dream.py", "tokenization_dream.py"):
        (folder / name).write_text(FORBIDDEN)
    return folder


def llada_model(config: dict[str, Any]) -> llada.Model:
    """Return a LLaDA with random weights, without a folder."""
    return llada.Model(llada.ModelArgs.from_dict(config))
