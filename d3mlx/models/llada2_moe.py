"""LLaDA2 (Bie et al., 2025, "LLaDA2.0"): a mixture of experts (Ling 2.0) with block-causal attention.

Checkpoints with this architecture: LLaDA2.0-mini and LLaDA2.1-mini. LLaDA2.1 also edits committed tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import mlx.core as mx

from d3mlx.errors import CheckpointError
from d3mlx.models import dream
from d3mlx.models.experts import Experts
from d3mlx.models.fields import check_block_size
from d3mlx.models.traits import Recommended, Traits
from d3mlx.models.transformer import Shape

MASK_ID = 156895
"""The mask token of the published checkpoints, which not every config.json names."""

VOCABULARY = 157184
"""Vocabulary of the published checkpoints."""

PUBLISHED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_qkv_bias": (False,),
    "use_bias": (False,),
    "use_qk_norm": (True,),
    "norm_head": (False,),
    "use_sliding_window": (False,),
    "score_function": ("sigmoid",),
    "norm_topk_prob": (True,),
    "moe_router_enable_expert_bias": (True,),
    "router_dtype": ("fp32",),
}
"""Fields that change the forward, with the supported values, which all released checkpoints have."""


@dataclass(kw_only=True)
class ModelArgs(dream.ModelArgs):
    """Fields of a LLaDA2 checkpoint's config.json. block_size: that of the published decoders."""

    published: ClassVar[dict[str, tuple[Any, ...]]] = PUBLISHED

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    num_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 0
    partial_rotary_factor: float = 1.0
    rope_theta: float = 600000.0
    max_position_embeddings: int = 32768
    block_size: int = 32

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        """Return the fields of a config.json. Raises CheckpointError for an unsupported value."""
        return super().from_dict({**params, **missing_fields(params, ())})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block_size("block_size", self.block_size)
        if not 0 < self.partial_rotary_factor <= 1 or self.shape().rotary_dims % 2:
            raise CheckpointError(
                f"config.json has partial_rotary_factor = {self.partial_rotary_factor}. Use a share of a head, above 0 "
                "and at most 1, that has an even number of dimensions."
            )
        self.check_experts()

    def check_experts(self) -> None:
        """Raise CheckpointError if the numbers of experts do not fit each other."""
        count, groups = self.num_experts, self.n_group
        whole = min(count, groups, self.topk_group, self.num_experts_per_tok, self.moe_intermediate_size) > 0
        if not whole or count % groups or not self.num_experts_per_tok <= self.topk_group * (count // groups) <= count:
            raise CheckpointError(
                f"config.json is inconsistent: a row cannot choose num_experts_per_tok {self.num_experts_per_tok} of "
                f"num_experts {count} in topk_group {self.topk_group} of n_group {groups} groups."
            )
        if self.num_shared_experts < 0 or not 0 <= self.first_k_dense_replace <= self.num_hidden_layers:
            raise CheckpointError(
                f"config.json has num_shared_experts {self.num_shared_experts} and first_k_dense_replace "
                f"{self.first_k_dense_replace}. Use numbers from 0 on, the second at most the number of layers."
            )

    def shape(self) -> Shape:
        plain = super().shape()
        experts = Experts(
            count=self.num_experts,
            chosen=self.num_experts_per_tok,
            width=self.moe_intermediate_size,
            shared=self.num_shared_experts * self.moe_intermediate_size,
            groups=self.n_group,
            chosen_groups=self.topk_group,
            scale=self.routed_scaling_factor,
            dense=self.first_k_dense_replace,
        )
        rotated = int(plain.head_dim * self.partial_rotary_factor)
        return replace(plain, qkv_bias=False, qk_norm=True, fused_qkv=True, rotary_dims=rotated, experts=experts)


def missing_fields(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the mask token of a config.json of the published vocabulary without one."""
    unnamed = config.get("mask_token_id") is None and config.get("vocab_size") == VOCABULARY
    return {"mask_token_id": MASK_ID} if unnamed else {}


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`).

    The experts are those of LLaDA2-mini.
    """
    return {
        **dream.config_of(sizes, context),
        "model_type": "llada2_moe",
        "partial_rotary_factor": 0.5,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "n_group": 8,
        "topk_group": 4,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
    }


TRAITS = Traits(
    name="llada2_moe",
    architectures=("LLaDA2MoeModelLM",),
    shift=0,
    template=(
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<role>HUMAN</role>' }}"
        "{% else %}{{ '<role>' + message['role'] | upper + '</role>' }}{% endif %}"
        "{{ message['content'] + '<|role_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<role>ASSISTANT</role>' }}{% endif %}"
    ),
    turn_end="<|role_end|>",
    attention="block-causal",
    decoder="llada2",
    missing_fields=missing_fields,
    recommended=(Recommended(r"llada2\.1", options={"llada2": {"threshold": 0.7, "editing_threshold": 0.5}}),),
)

ATTENTION_KEYS = {
    "query_key_value": "qkv_proj",
    "dense": "o_proj",
    "query_layernorm": "q_norm",
    "key_layernorm": "k_norm",
}
LAYER_KEY = re.compile(r"(model\.layers\.\d+)\.attention\.(\w+)\.(\w+)")
EXPERT_KEY = re.compile(r"(model\.layers\.\d+\.mlp)\.experts\.(\d+)\.(\w+)\.(\w+)")


class Model(dream.Model):
    """LLaDA2 with llama-style module names.

    `shift` is 0: the logits of row p predict the token at p.
    """

    family = TRAITS.name
    shift = TRAITS.shift

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Return the weights by the names that this model has for them, those of all experts of a layer in one."""
        renamed: dict[str, mx.array] = {}
        experts: dict[str, dict[int, mx.array]] = {}
        for key, value in weights.items():
            if place := self.stack_of(key):
                name, number = place
                experts.setdefault(name, {})[number] = value
            elif match := LAYER_KEY.fullmatch(key):
                layer, module, leaf = match.groups()
                renamed[f"{layer}.self_attn.{ATTENTION_KEYS.get(module, module)}.{leaf}"] = value
            else:
                renamed[key.replace("model.word_embeddings.", "model.embed_tokens.")] = value
        for name, parts in experts.items():
            renamed[name] = mx.stack([parts[number] for number in sorted(parts)])
        if self.args.tie_word_embeddings:
            renamed.pop("lm_head.weight", None)
        return renamed

    @staticmethod
    def stack_of(key: str) -> tuple[str, int] | None:
        """Return the name of the array that contains an expert's weight, and its number; None for other weights."""
        if match := EXPERT_KEY.fullmatch(key):
            layer, number, module, leaf = match.groups()
            return f"{layer}.switch_mlp.{module}.{leaf}", int(number)
        return None

    @property
    def cast_predicate(self) -> Callable[[str], bool]:
        """Return a function that says whether a conversion may change the dtype of a weight: not of the router's."""
        return lambda name: ".mlp.gate." not in name
