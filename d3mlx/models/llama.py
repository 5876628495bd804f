"""Llama's fields of config.json, for the families with its layers and its names of tensors.

It is not a family: a plain Llama model has a causal mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from d3mlx.errors import CheckpointError
from d3mlx.models import dream
from d3mlx.models.fields import rope_fields
from d3mlx.models.transformer import Shape

MASK_ID = 5
"""The mask token of the published checkpoints, which is an argument of their code and not a field of config.json."""

TURN_END = "<[end▁of▁sentence]>"
TEMPLATE = (
    "{% for message in messages %}{{ '<[begin▁of▁sentence]>' + message['role'] + '\n' + message['content'] }}"
    "{% if message['role'] == 'system' %}{{ '\n\n' }}{% endif %}{{ '<[end▁of▁sentence]>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<[begin▁of▁sentence]>assistant\n' }}{% endif %}"
)
"""Seed-Coder's chat template, without its default system message."""


@dataclass
class ModelArgs(dream.ModelArgs):
    """Fields of a config.json in Llama's style. rope_theta has no default because published models differ."""

    published: ClassVar[dict[str, tuple[Any, ...]]] = {**dream.PUBLISHED, "attention_bias": (False,)}

    max_position_embeddings: int = 8192

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        """Return the fields of a config.json. Raises CheckpointError for an unsupported value."""
        if "rope_theta" not in rope_fields(params):
            raise CheckpointError("config.json has no rope_theta.")
        return super().from_dict({**params, **missing_fields(params, ())})

    def shape(self) -> Shape:
        return replace(super().shape(), qkv_bias=False)


def missing_fields(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the mask token of a config.json without one."""
    return {} if config.get("mask_token_id") is not None else {"mask_token_id": MASK_ID}


def config_of(sizes: Any, context: int, architecture: str) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    own = {"model_type": "llama", "architectures": [architecture], "rope_theta": 500000.0}
    return {**dream.config_of(sizes, context), **own}
