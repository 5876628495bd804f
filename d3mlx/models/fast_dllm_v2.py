"""Fast-dLLM v2 (Wu et al., 2025, "Fast-dLLM v2: Efficient Block-Diffusion LLM"): Qwen2.5 with block-causal attention.

Checkpoints with this architecture: Fast_dLLM_v2_1.5B and Fast_dLLM_v2_7B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from d3mlx.models import dream
from d3mlx.models.fields import check_block_size
from d3mlx.models.traits import Traits

MASK_ID = 151665
"""The mask token of the published checkpoints, which is an argument of their code and not a field of config.json."""


@dataclass
class ModelArgs(dream.ModelArgs):
    """Fields of a Fast-dLLM v2 checkpoint's config.json."""

    max_position_embeddings: int = 32768
    bd_size: int = 32

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        return super().from_dict({**params, **missing_fields(params, ())})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block_size("bd_size", self.bd_size)

    @property
    def block_size(self) -> int:
        return self.bd_size


def missing_fields(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the mask token of a config.json without one."""
    return {} if config.get("mask_token_id") is not None else {"mask_token_id": MASK_ID}


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    return {**dream.config_of(sizes, context), "model_type": "Fast_dLLM_Qwen"}


TRAITS = Traits(
    name="fast_dllm_v2",
    architectures=("Fast_dLLM_QwenForCausalLM",),
    shift=1,
    template=dream.TRAITS.template,
    turn_end="<|im_end|>",
    attention="block-causal",
    decoder="fast-dllm-v2",
    missing_fields=missing_fields,
)


class Model(dream.Model):
    """Fast-dLLM v2 with the names of its checkpoints, which are Qwen2's."""

    family = TRAITS.name
    shift = TRAITS.shift
