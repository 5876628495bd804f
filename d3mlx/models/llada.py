"""LLaDA (Nie et al., 2025, "Large Language Diffusion Models"): a Llama model without a causal mask.

Checkpoints with this architecture: LLaDA-8B Base / Instruct, LLaDA-1.5, d3LLM_LLaDA, dParallel-LLaDA, and the
demonstration models of this package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import BaseModelArgs

from d3mlx.errors import CheckpointError
from d3mlx.models.fields import refuse_other_values, rope_fields
from d3mlx.models.traits import D3LLMDefaults, Recommended, Traits
from d3mlx.models.transformer import LayerCache, Positions, Shape, Transformer

PUBLISHED: dict[str, tuple[Any, ...]] = {
    "activation_type": ("silu",),
    "block_type": ("llama",),
    "block_group_size": (1,),
    "layer_norm_type": ("rms",),
    "rope": (True,),
    "alibi": (False,),
    "attention_layer_norm": (False,),
    "embedding_layer_norm": (False,),
    "include_bias": (False,),
    "bias_for_layer_norm": (False,),
    "clip_qkv": (),
    "num_experts": (0, 1),
    "n_experts": (0, 1),
}
"""Fields that change the forward, with the supported values, which all released checkpoints have."""


@dataclass
class ModelArgs(BaseModelArgs):
    """Fields of a LLaDA checkpoint's config.json, with the published names and defaults."""

    model_type: str
    d_model: int
    n_layers: int
    n_heads: int
    vocab_size: int
    mask_token_id: int
    eos_token_id: int | list[int]
    n_kv_heads: int | None = None
    multi_query_attention: bool | None = None
    mlp_hidden_size: int | None = None
    mlp_ratio: int = 4
    embedding_size: int | None = None
    max_sequence_length: int = 4096
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    weight_tying: bool = False
    include_qkv_bias: bool = False
    input_emb_norm: bool = False
    scale_logits: bool = False
    pad_token_id: int | None = None
    max_new_tokens: int = 256

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> ModelArgs:
        """Return the fields of a config.json. Raises CheckpointError for an unsupported value."""
        refuse_other_values(params, PUBLISHED)
        fields = rope_fields(params)
        if fields.pop("rope_scaling", None) is not None:
            raise CheckpointError("config.json has a rope_scaling, which LLaDA's published code does not support.")
        return super().from_dict({**params, **fields})

    def __post_init__(self) -> None:
        if self.n_kv_heads is None:
            self.n_kv_heads = 1 if self.multi_query_attention else self.n_heads
        if self.n_heads <= 0 or self.d_model % self.n_heads or self.n_heads % self.n_kv_heads:
            raise CheckpointError(
                f"config.json is inconsistent: d_model {self.d_model}, n_heads {self.n_heads} and n_kv_heads "
                f"{self.n_kv_heads} must divide one another."
            )

    @property
    def logit_width(self) -> int:
        """Return V, the columns of the logits; embedding_size may pad the vocabulary."""
        return self.embedding_size or self.vocab_size

    @property
    def context(self) -> int:
        return self.max_sequence_length

    def shape(self) -> Shape:
        assert self.n_kv_heads is not None
        return Shape(
            hidden=self.d_model,
            layers=self.n_layers,
            heads=self.n_heads,
            kv_heads=self.n_kv_heads,
            head_dim=self.d_model // self.n_heads,
            ff=self.mlp_hidden_size or self.mlp_ratio * self.d_model,
            eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            qkv_bias=self.include_qkv_bias,
            context=self.max_sequence_length,
        )


BLOCK_KEYS = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
TOP_KEYS = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
BLOCK_KEY = re.compile(r"model\.(?:transformer\.blocks|layers)\.(\d+)\.(\w+)\.(\w+)")
TOP_KEY = re.compile(r"model\.transformer\.(\w+)\.(\w+)")


def rename(key: str) -> str:
    """Return this model's name of a tensor, given the original name or that of an mlx-community conversion."""
    if match := BLOCK_KEY.fullmatch(key):
        layer, module, leaf = match.groups()
        return f"model.layers.{layer}.{BLOCK_KEYS[module]}.{leaf}" if module in BLOCK_KEYS else key
    if match := TOP_KEY.fullmatch(key):
        module, leaf = match.groups()
        return f"{TOP_KEYS[module]}.{leaf}" if module in TOP_KEYS else key
    return key.removeprefix("model.") if key.startswith("model.lm_head.") else key


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    return {
        "model_type": "llada",
        "d_model": sizes.hidden,
        "n_layers": sizes.layers,
        "mlp_hidden_size": sizes.ff,
        "n_heads": sizes.heads,
        "n_kv_heads": sizes.kv_heads,
        "max_sequence_length": context,
        "vocab_size": sizes.vocab,
    }


TRAITS = Traits(
    name="llada",
    architectures=("LLaDAModelLM", "LLaDAModel"),
    shift=0,
    template=(
        "{{ '<|startoftext|>' }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim "
        "+ '<|eot_id|>' }}"
        "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    ),
    turn_end="<|eot_id|>",
    sampler="quota",
    carries_quota=False,
    d3llm=D3LLMDefaults(threshold=0.5, inclusive=True, best_always=True, force_likeliest=True, one_at_a_time=True),
    plain_questions=True,
    hides_padding=True,
    counts_padding=False,
    recommended=(Recommended("d3llm", options={"d3llm": {"threshold": 0.5}}),),
)


class Model(nn.Module):
    """LLaDA with llama-style module names.

    `shift` is 0: the logits of row p predict the token at p.
    """

    family = TRAITS.name
    shift = TRAITS.shift

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = Transformer(args.shape(), args.logit_width)
        if not args.weight_tying:
            self.lm_head = nn.Linear(args.d_model, args.logit_width, bias=False)

    def hidden(
        self,
        ids: mx.array,
        positions: Positions = 0,
        cache: Sequence[LayerCache] | None = None,
        kept: mx.array | None = None,
    ) -> mx.array:
        """Return the hidden rows [B, R, d_model] of ids [B, R] at `positions`, with the final norm applied.

        kept: as for `Transformer`.
        """
        scale = self.args.d_model**0.5 if self.args.input_emb_norm else 1.0
        return self.model(ids, positions, cache, scale, kept=kept)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the logits [..., logit_width] of hidden rows [..., d_model]."""
        out = self.model.embed_tokens.as_linear(hidden) if self.args.weight_tying else self.lm_head(hidden)
        return out * self.args.d_model**-0.5 if self.args.scale_logits else out

    def __call__(self, ids: mx.array) -> mx.array:
        """Return the logits [B, L, logit_width] of complete sequences, ids [B, L]."""
        return self.logits(self.hidden(ids))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Return the weights by the names that this model has for them."""
        renamed = {rename(key): value for key, value in weights.items()}
        if self.args.weight_tying:
            renamed.pop("lm_head.weight", None)
        return renamed

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers
