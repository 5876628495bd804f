"""SDAR (Cheng et al., 2025, "SDAR"): Qwen3 with block-causal attention.

Checkpoints with this architecture: SDAR-{1.7B,4B,8B}-Chat, with -b8 to -b64 for other block sizes, LightningRL, TraDo.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from d3mlx.models import dream
from d3mlx.models.fields import check_block_size
from d3mlx.models.traits import Traits
from d3mlx.models.transformer import Shape

BLOCK_SIZE = 4
"""Block size of a checkpoint whose config and name have none."""

IN_NAME = re.compile(r"-b([1-9]\d*)(?=$|[-_.])", re.IGNORECASE)
"""The block size in a name such as SDAR-8B-Chat-b32."""


@dataclass
class ModelArgs(dream.ModelArgs):
    """Fields of an SDAR checkpoint's config.json."""

    published: ClassVar[dict[str, tuple[Any, ...]]] = {**dream.PUBLISHED, "attention_bias": (False,)}

    max_position_embeddings: int = 32768
    block_size: int = BLOCK_SIZE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block_size("block_size", self.block_size)

    def shape(self) -> Shape:
        return replace(super().shape(), qkv_bias=False, qk_norm=True)


def missing_fields(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the block size of a config.json without one, from the names of the checkpoint."""
    if config.get("block_size") is not None:
        return {}
    named = [int(match[1]) for name in names if (match := IN_NAME.search(name))]
    return {"block_size": named[0] if named else BLOCK_SIZE}


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    return {**dream.config_of(sizes, context), "model_type": "sdar"}


TRAITS = Traits(
    name="sdar",
    architectures=("SDARForCausalLM",),
    shift=0,
    template=(
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    turn_end="<|im_end|>",
    attention="block-causal",
    decoder="sdar",
    missing_fields=missing_fields,
)


class Model(dream.Model):
    """SDAR with the names of its checkpoints, which are Qwen3's.

    `shift` is 0: the logits of row p predict the token at p.
    """

    family = TRAITS.name
    shift = TRAITS.shift
