"""Stable-DiffCoder (Fan et al., 2026, "Stable-DiffCoder"): Llama with block-causal attention, trained on code.

Checkpoints with this architecture: Stable-DiffCoder-8B Base and Instruct. Their model_type is that of Llama.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from d3mlx.models import dream, llama
from d3mlx.models.fields import check_block_size
from d3mlx.models.traits import Recommended, Traits

ARCHITECTURE = "StableDiffcoderForCausalLM"


@dataclass
class ModelArgs(llama.ModelArgs):
    """Fields of a Stable-DiffCoder checkpoint's config.json.

    block_size: 4 in the published code, which takes it as an argument.
    """

    block_size: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block_size("block_size", self.block_size)


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    return llama.config_of(sizes, context, ARCHITECTURE)


TRAITS = Traits(
    name="stable_diffcoder",
    architectures=(ARCHITECTURE,),
    shift=0,
    template=llama.TEMPLATE,
    turn_end=llama.TURN_END,
    attention="block-causal",
    decoder="stable-diffcoder",
    missing_fields=llama.missing_fields,
    recommended=(Recommended("stable.?diffcoder", max_tokens=512, options={"stable-diffcoder": {"alg": "static"}}),),
)


class Model(dream.Model):
    """Stable-DiffCoder with the names of its checkpoints, which are Llama's.

    `shift` is 0: the logits of row p predict the token at p.
    """

    family = TRAITS.name
    shift = TRAITS.shift
