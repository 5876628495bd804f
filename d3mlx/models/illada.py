"""iLLaDA (Nie et al., 2026, "Improved Large Language Diffusion Models"): Llama without a causal mask.

Checkpoints with this architecture: iLLaDA-8B Base and Instruct. Keys and values have fewer heads than queries, and the
embedding is also the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from d3mlx.errors import CheckpointError
from d3mlx.models import dream, llada, llama

ARCHITECTURE = "ILLaDAForCausalLM"


@dataclass
class ModelArgs(llama.ModelArgs):
    """Fields of an iLLaDA checkpoint's config.json. A layer_norm_eps means other norms."""

    published: ClassVar[dict[str, tuple[Any, ...]]] = {**llama.ModelArgs.published, "layer_norm_eps": ()}

    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rope_scaling is not None:
            raise CheckpointError("config.json has a rope_scaling, which iLLaDA's published code does not support.")


def config_of(sizes: Any, context: int) -> dict[str, Any]:
    """Return the config.json, without token ids, of a model with these sizes (`bench.shapes.Sizes`)."""
    return {**llama.config_of(sizes, context, ARCHITECTURE), "tie_word_embeddings": True}


TRAITS = replace(
    llada.TRAITS,
    name="illada",
    architectures=(ARCHITECTURE,),
    template=llama.TEMPLATE,
    turn_end=llama.TURN_END,
    missing_fields=llama.missing_fields,
    recommended=(),
)


class Model(dream.Model):
    """iLLaDA with the names of its checkpoints, which are Llama's.

    `shift` is 0: the logits of row p predict the token at p.
    """

    family = TRAITS.name
    shift = TRAITS.shift
