"""Dream (Ye et al., 2025, "Dream 7B"): Qwen2.5 with bidirectional attention and its original next-token head.

Checkpoints with this architecture: Dream-v0 Base / Instruct, Dream-Coder, DiffuCoder, d3LLM_Dream, d3LLM_Dream_Coder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import BaseModelArgs

from d3mlx.errors import CheckpointError
from d3mlx.models.fields import refuse_other_values, rope_fields
from d3mlx.models.traits import D3LLMDefaults, Recommended, Traits
from d3mlx.models.transformer import LayerCache, Positions, Shape, Transformer

PUBLISHED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "attention_bias": (True,),
    "mlp_bias": (False,),
    "use_mrope": (False,),
    "partial_rotary_factor": (1, 1.0),
    "num_experts": (0, 1),
}
"""Fields that change the forward, with the supported values, which all released checkpoints have."""


@dataclass
class ModelArgs(BaseModelArgs):
    """Fields of a Dream checkpoint's config.json. Token ids have no default because published checkpoints differ.

    published: the supported values of fields that have no other effect.
    """

    published: ClassVar[dict[str, tuple[Any, ...]]] = PUBLISHED

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    mask_token_id: int
    eos_token_id: int | list[int]
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1000000.0
    rope_scaling: dict[str, float | str] | None = None
    max_position_embeddings: int = 131072
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    max_new_tokens: int = 256
    head_dim: int | None = None

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        """Return the fields of a config.json. Raises CheckpointError for an unsupported value."""
        refuse_other_values(params, cls.published)
        layers = params.get("layer_types")
        if layers is not None and (not isinstance(layers, list) or set(map(str, layers)) - {"full_attention"}):
            raise CheckpointError(
                "config.json has layer_types other than full_attention, which d3mlx does not support."
            )
        return cast(Self, super().from_dict({**params, **rope_fields(params)}))

    def __post_init__(self) -> None:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        divided = self.head_dim is not None or self.hidden_size % max(heads, 1) == 0
        if heads <= 0 or kv_heads <= 0 or not divided or heads % kv_heads:
            raise CheckpointError(
                f"config.json is inconsistent: hidden_size {self.hidden_size}, num_attention_heads {heads} and "
                f"num_key_value_heads {kv_heads} must divide one another."
            )

    @property
    def logit_width(self) -> int:
        """Return V, the columns of the logits."""
        return self.vocab_size

    @property
    def context(self) -> int:
        return self.max_position_embeddings

    def shape(self) -> Shape:
        return Shape(
            hidden=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim or self.hidden_size // self.num_attention_heads,
            ff=self.intermediate_size,
            eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            qkv_bias=True,
            context=self.max_position_embeddings,
            rope_scaling=self.rope_scaling,
        )


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    return {
        "model_type": "Dream",
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.ff,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim or None,
        "max_position_embeddings": context,
        "vocab_size": sizes.vocab,
    }


TRAITS = Traits(
    name="dream",
    architectures=("DreamModel", "DreamBaseModel", "DreamForCausalLM"),
    shift=1,
    template=(
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
        "{% endif %}{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    turn_end="<|im_end|>",
    sampler="schedule",
    carries_quota=True,
    d3llm=D3LLMDefaults(threshold=0.4, inclusive=False, best_always=False, force_likeliest=False, one_at_a_time=False),
    plain_questions=False,
    hides_padding=False,
    counts_padding=True,
    recommended=(
        Recommended("d3llm.dream.?coder", options={"d3llm": {"threshold": 0.5, "cache_delay": 32}}),
        Recommended("d3llm.dream", options={"d3llm": {"threshold": 0.5, "cache_delay": 10000}}),
        Recommended("dream.?coder", temperature=0.1, end_penalty=3.0, max_tokens=512),
        Recommended("diffucoder.*base", temperature=0.2, top_p=0.95),
        Recommended("diffucoder", temperature=0.4, top_p=0.95),
        Recommended("dream", temperature=0.2, top_p=0.95, max_tokens=512),
    ),
)


class Model(nn.Module):
    """Dream with the llama-style key names of its checkpoints.

    `shift` is 1: the logits of row p predict the token at p + 1. So the prediction for position p is read from the
    hidden row of p - 1, and for position 0 from row 0.
    """

    family = TRAITS.name
    shift = TRAITS.shift

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = Transformer(args.shape(), args.logit_width)
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def hidden(
        self,
        ids: mx.array,
        positions: Positions = 0,
        cache: Sequence[LayerCache] | None = None,
        kept: mx.array | None = None,
    ) -> mx.array:
        """Return the hidden rows [B, R, hidden_size] of ids [B, R] at `positions`, with the final norm applied.

        kept: as for `Transformer`.
        """
        return self.model(ids, positions, cache, kept=kept)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the logits [..., vocab_size] of hidden rows [..., hidden_size]."""
        return self.model.embed_tokens.as_linear(hidden) if self.args.tie_word_embeddings else self.lm_head(hidden)

    def __call__(self, ids: mx.array) -> mx.array:
        """Return the unshifted logits [B, L, vocab_size] of complete sequences, ids [B, L]."""
        return self.logits(self.hidden(ids))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Return the weights that this model has, by its own names."""
        used = {key: value for key, value in weights.items() if not key.endswith("rotary_emb.inv_freq")}
        if self.args.tie_word_embeddings:
            used.pop("lm_head.weight", None)
        return used

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers
