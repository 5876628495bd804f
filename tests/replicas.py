"""Small folders like the published ones, with real key names, JSON fields and tokens, and random weights.

Each docstring names assumptions about the published folder. Sizes are those of `builders`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_config

from d3mlx.models import fast_dllm_v2, illada, llada2_moe, sdar, stable_diffcoder
from tests.builders import (
    BYTES,
    DREAM_CONFIG,
    FORBIDDEN,
    LLADA_CONFIG,
    byte_tokenizer,
    dream_weights,
    llada_weights,
    random_weights,
    write_dream,
    write_json,
    write_llada,
    write_weights,
)

GROUP = 64
TOP = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "model.lm_head"}


def quantized(weights: dict[str, mx.array], bits: int) -> dict[str, mx.array]:
    """Return matrices quantized by MLX in groups of 64, with 16-bit scales, and other arrays in 16-bit floats."""
    out: dict[str, mx.array] = {}
    for name, value in weights.items():
        value = value.astype(mx.float16)
        if value.ndim == 2:
            path = name.removesuffix(".weight")
            out[name], out[f"{path}.scales"], out[f"{path}.biases"] = mx.quantize(value, GROUP, bits)
        else:
            out[name] = value
    return out


def change_config(folder: Path, **changes: Any) -> None:
    config: dict[str, Any] = load_config(folder)
    write_json(folder / "config.json", {name: value for name, value in (config | changes).items() if value is not ...})


def mlx_llada(folder: Path, bits: int | None) -> Path:
    """Write a folder like mlx-community/LLaDA-8B-Instruct-mlx-{4bit,8bit,fp16}, which has other names of tensors.

    Assumed: groups of 64.
    """
    write_llada(folder)
    weights = {}
    for name, value in llada_weights(LLADA_CONFIG).items():
        _, _, *rest = name.split(".")
        new = f"model.layers.{'.'.join(rest[1:])}" if rest[0] == "blocks" else f"{TOP[rest[0]]}.{rest[1]}"
        weights[new] = value
    floats = {name: value.astype(mx.float16) for name, value in weights.items()}
    write_weights(folder, floats if bits is None else quantized(weights, bits))
    if bits is not None:
        settings = {"group_size": GROUP, "bits": bits}
        change_config(folder, quantization=settings, quantization_config=settings)
    return folder


def diffucoder(folder: Path, bits: int | None = None) -> Path:
    """Write a folder like apple/DiffuCoder-7B-cpGRPO or mlx-community's {4,6,8}bit: Dream with its own padding token.

    Conversions by mlx-lm 0.22 to 0.25 list every module with true or false. Assumed: the list of modules.
    """
    write_dream(folder)
    weights = dream_weights(DREAM_CONFIG)
    pad = {"content": "<|dlm_pad|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = load_json(folder / "tokenizer_config.json")
    tokens["added_tokens_decoder"]["261"] = pad
    write_json(folder / "tokenizer_config.json", tokens | {"pad_token": "<|dlm_pad|>"})
    wider = {name: mx.pad(value, [(0, 1), (0, 0)]) for name, value in weights.items() if name in EMBEDDINGS}
    weights |= wider
    change_config(folder, vocab_size=262, pad_token_id=261)
    if bits is None:
        write_weights(folder, {name: value.astype(mx.bfloat16) for name, value in weights.items()})
        return folder
    write_weights(folder, quantized(weights, bits))
    matrices = {name.rpartition(".")[0]: value.ndim == 2 for name, value in weights.items() if "bias" not in name}
    settings = {"group_size": GROUP, "bits": bits, **matrices}
    change_config(folder, quantization=settings, quantization_config=settings)
    return folder


EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def load_json(path: Path) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(path.read_text())
    return value


def dream_coder(folder: Path) -> Path:
    """Write a folder like Dream-Coder-v0-Instruct-7B or d3LLM_Dream_Coder. Assumed: the same files as Dream's."""
    return write_dream(folder)


def saved_by_transformers_5(folder: Path) -> Path:
    """Write a Dream as transformers 5 saves it: with rope_parameters instead of rope_theta, and with layer_types."""
    write_dream(folder)
    layers = ["full_attention"] * DREAM_CONFIG["num_hidden_layers"]
    rope = {"rope_type": "default", "rope_theta": DREAM_CONFIG["rope_theta"]}
    change_config(folder, rope_theta=..., rope_scaling=..., rope_parameters=rope, layer_types=layers)
    return folder


def block_causal(folder: Path, module: Any, mask: str, **changes: Any) -> Path:
    """Write a folder of a block-causal family, whose tokenizer has Qwen's files and another mask token.

    Its code must not run. changes: to the fields of config.json.
    """
    write_dream(folder)
    tokens = load_json(folder / "tokenizer_config.json")
    for token in tokens["added_tokens_decoder"].values():
        token["content"] = token["content"].replace("<|mask|>", mask)
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "tokenizer_class": "Qwen2Tokenizer"}
    kept = {name: value for name, value in tokens.items() if name not in ("mask_token", "auto_map")}
    write_json(folder / "tokenizer_config.json", kept | names)
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_dream.Model"}, **changes)
    config = {**load_json(folder / "config.json"), "mask_token_id": MASK_ID}
    model = module.Model(module.ModelArgs.from_dict(config))
    shapes = {name: value.shape for name, value in tree_flatten(model.parameters())}
    write_weights(folder, {name: value.astype(mx.bfloat16) for name, value in random_weights(shapes, 0).items()})
    return folder


MASK_ID = DREAM_CONFIG["mask_token_id"]
END_ID = DREAM_CONFIG["eos_token_id"]


def sdar_chat(folder: Path, **changes: Any) -> Path:
    """Write a folder like JetLM/SDAR-4B-Chat. Its turns end with a token that only generation_config.json lists."""
    fields: dict[str, Any] = {
        "architectures": ["SDARForCausalLM"],
        "attention_bias": False,
        "block_size": 4,
        "bos_token_id": END_ID,
        "fuse_cross_entropy": True,
        "head_dim": 64,
        "max_window_layers": 2,
        "model_type": "sdar",
        "pad_token_id": None,
    }
    block_causal(folder, sdar, "<|MASK|>", **fields | changes)
    write_json(folder / "generation_config.json", {"do_sample": True, "eos_token_id": [258, END_ID], "top_k": 20})
    return folder


def fast_dllm_v2_folder(folder: Path) -> Path:
    """Write a folder like Efficient-Large-Model/Fast_dLLM_v2_7B, but with a mask token in config.json."""
    architecture = {"architectures": ["Fast_dLLM_QwenForCausalLM"], "model_type": "Fast_dLLM_Qwen"}
    block_causal(folder, fast_dllm_v2, "|<MASK>|", **architecture, bd_size=32, eos_token_id=258)
    write_json(folder / "generation_config.json", {"eos_token_id": [258, END_ID]})
    return folder


LLADA2_CONFIG: dict[str, Any] = {
    "architectures": ["LLaDA2MoeModelLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM"},
    "eos_token_id": END_ID,
    "first_k_dense_replace": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "mask_token_id": MASK_ID,
    "max_position_embeddings": 32768,
    "model_type": "llada2_moe",
    "moe_intermediate_size": 64,
    "moe_router_enable_expert_bias": True,
    "n_group": 4,
    "norm_head": False,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_shared_experts": 1,
    "output_router_logits": False,
    "pad_token_id": END_ID,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 600000,
    "routed_scaling_factor": 2.5,
    "router_dtype": "fp32",
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 2,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "vocab_size": 261,
}


def llada2_weights(config: dict[str, Any]) -> dict[str, mx.array]:
    """Return random weights with the names of LLaDA2's checkpoints: in bfloat16, and the router's bias in float32."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    vocabulary = {"model.word_embeddings.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    shapes: dict[str, tuple[int, ...]] = {**vocabulary, "lm_head.weight": (config["vocab_size"], hidden)}

    def mlp(path: str, width: int) -> None:
        shapes.update({f"{path}.{name}_proj.weight": (width, hidden) for name in ("gate", "up")})
        shapes[f"{path}.down_proj.weight"] = (hidden, width)

    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
        shapes |= {f"{layer}.attention.{name}_layernorm.weight": (head,) for name in ("query", "key")}
        shapes[f"{layer}.attention.query_key_value.weight"] = (queries + 2 * kv, hidden)
        shapes[f"{layer}.attention.dense.weight"] = (hidden, queries)
        if i < config["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", config["intermediate_size"])
            continue
        shapes[f"{layer}.mlp.gate.weight"] = (config["num_experts"], hidden)
        shapes[f"{layer}.mlp.gate.expert_bias"] = (config["num_experts"],)
        for expert in range(config["num_experts"]):
            mlp(f"{layer}.mlp.experts.{expert}", config["moe_intermediate_size"])
        mlp(f"{layer}.mlp.shared_experts", config["moe_intermediate_size"] * config["num_shared_experts"])
    weights = random_weights(shapes, 0)
    return {
        name: value if name.endswith("expert_bias") else value.astype(mx.bfloat16) for name, value in weights.items()
    }


def llada2(folder: Path) -> Path:
    """Write a folder like inclusionAI/LLaDA2.0-mini, with a mask token in config.json.

    Assumed: the chat template is in tokenizer_config.json, and <|role_end|> is a token of the tokenizer.
    """
    write_dream(folder)
    tokens = load_json(folder / "tokenizer_config.json")
    for token in tokens["added_tokens_decoder"].values():
        token["content"] = token["content"].replace("<|im_end|>", "<|role_end|>")
    kept = {name: value for name, value in tokens.items() if name not in ("auto_map", "chat_template")}
    write_json(folder / "tokenizer_config.json", kept | {"chat_template": llada2_moe.TRAITS.template})
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    write_json(folder / "config.json", LLADA2_CONFIG)
    (folder / "model.safetensors").unlink()
    write_weights(folder, llada2_weights(LLADA2_CONFIG), shards=3)
    return folder


SEED_SPECIAL = [
    "<[begin▁of▁sentence]>",
    "<[PAD▁TOKEN]>",
    "<[end▁of▁sentence]>",
    "<[UNK_TOKEN]>",
    "<[SEP▁TOKEN]>",
    "<[MASK_TOKEN]>",
]
"""The first tokens of Seed-Coder's vocabulary. Assumed: the third and the fourth."""


def llama_style(folder: Path, module: Any, name: str, **changes: Any) -> Path:
    """Write a folder with Llama's layers and names and Seed-Coder's special tokens, without a mask token in its config.

    Its code must not run. name: of that code. changes: to the fields of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = len(SEED_SPECIAL) + len(BYTES)
    fields: dict[str, Any] = {
        "architectures": [module.ARCHITECTURE],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {"AutoModelForCausalLM": f"modeling_{name}.{module.ARCHITECTURE}"},
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 1,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "vocab_size": size,
    }
    config = {field: value for field, value in (fields | changes).items() if value is not ...}
    write_json(folder / "config.json", config)
    model = module.Model(module.ModelArgs.from_dict(config))
    shapes = {name: value.shape for name, value in tree_flatten(model.parameters())}
    write_weights(folder, {name: value.astype(mx.bfloat16) for name, value in random_weights(shapes, 0).items()})
    byte_tokenizer(SEED_SPECIAL, first=True).save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": SEED_SPECIAL[0], "pad_token": SEED_SPECIAL[1], "eos_token": SEED_SPECIAL[2]}
    write_json(folder / "tokenizer_config.json", tokens | {"tokenizer_class": "PreTrainedTokenizerFast"})
    (folder / f"modeling_{name}.py").write_text(FORBIDDEN)
    return folder


def stable_diffcoder_folder(folder: Path, **changes: Any) -> Path:
    """Write a folder like ByteDance-Seed/Stable-DiffCoder-8B-Instruct. Its model_type is Llama's."""
    own = {"model_type": "llama", "head_dim": 16, "tie_word_embeddings": False}
    return llama_style(folder, stable_diffcoder, "stable_diffcoder", **own | changes)


def illada_folder(folder: Path, **changes: Any) -> Path:
    """Write a folder like GSAI-ML/iLLaDA-8B-Instruct, with fewer key heads and a tied head.

    Assumed: its model_type, the special tokens of its tokenizer, and that config.json has rope_theta and an end token.
    """
    own = {"model_type": "illada", "layer_norm_eps": None, "resid_pdrop": 0.0, "tie_word_embeddings": True}
    return llama_style(folder, illada, "illada", **own | changes)


REPLICAS: dict[str, Callable[[Path], Path]] = {
    "GSAI-ML/LLaDA-8B-Instruct": write_llada,
    "mlx-community/LLaDA-8B-Instruct-mlx-4bit": lambda folder: mlx_llada(folder, 4),
    "mlx-community/LLaDA-8B-Instruct-mlx-8bit": lambda folder: mlx_llada(folder, 8),
    "mlx-community/LLaDA-8B-Instruct-mlx-fp16": lambda folder: mlx_llada(folder, None),
    "Dream-org/Dream-v0-Instruct-7B": write_dream,
    "Dream-org/Dream-Coder-v0-Instruct-7B": dream_coder,
    "apple/DiffuCoder-7B-cpGRPO": diffucoder,
    "mlx-community/DiffuCoder-7B-cpGRPO-4bit": lambda folder: diffucoder(folder, 4),
    "mlx-community/DiffuCoder-7B-cpGRPO-6bit": lambda folder: diffucoder(folder, 6),
    "mlx-community/DiffuCoder-7B-cpGRPO-8bit": lambda folder: diffucoder(folder, 8),
    "a Dream saved by transformers 5": saved_by_transformers_5,
    "JetLM/SDAR-4B-Chat": sdar_chat,
    "JetLM/SDAR-8B-Chat-b32": lambda folder: sdar_chat(folder, block_size=...),
    "Efficient-Large-Model/Fast_dLLM_v2_7B": fast_dllm_v2_folder,
    "inclusionAI/LLaDA2.0-mini": llada2,
    "inclusionAI/LLaDA2.1-mini": llada2,
    "ByteDance-Seed/Stable-DiffCoder-8B-Instruct": stable_diffcoder_folder,
    "GSAI-ML/iLLaDA-8B-Instruct": illada_folder,
}


def folder_name(published: str) -> str:
    return re.sub(r"[^\w.-]+", "-", published)
