"""Model families, one file per family. `FAMILIES` maps a name in config.json to them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import mlx.core as mx

from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.models import dream, fast_dllm_v2, illada, llada, llada2_moe, sdar, stable_diffcoder
from d3mlx.models.traits import Attention, Traits
from d3mlx.models.transformer import LayerCache, Positions

FAMILIES: dict[str, ModuleType] = {
    "llada": llada,
    "Dream": dream,
    "sdar": sdar,
    "Fast_dLLM_Qwen": fast_dllm_v2,
    "llada2_moe": llada2_moe,
    "illada": illada,
    illada.ARCHITECTURE: illada,
    stable_diffcoder.ARCHITECTURE: stable_diffcoder,
}
"""The families by model_type, or by architecture if their model_type is that of another model, such as llama."""


class DiffusionModel(Protocol):
    """The part of a model that the engine uses.

    family: name of the family. shift: the logits of row p predict the token at p + shift. args: the family's ModelArgs.
    """

    family: str
    shift: int
    args: Any

    @property
    def layers(self) -> list[Any]: ...

    def hidden(
        self, ids: mx.array, positions: Positions = 0, cache: Sequence[LayerCache] | None = None
    ) -> mx.array: ...

    def logits(self, hidden: mx.array) -> mx.array: ...


class TrainableModel(DiffusionModel, Protocol):
    """The part of a model that a training uses: `hidden` also returns only the rows `kept` (see `Transformer`)."""

    def hidden(
        self,
        ids: mx.array,
        positions: Positions = 0,
        cache: Sequence[LayerCache] | None = None,
        kept: mx.array | None = None,
    ) -> mx.array: ...


def get_model_classes(config: dict[str, Any]) -> tuple[type, type]:
    """Return (Model, ModelArgs) for a config.json, as `mlx_lm.utils.load_model(get_model_classes=...)` expects.

    Raises CheckpointError as `family_of` does.
    """
    module = family_of(config)
    return module.Model, module.ModelArgs


def family_of(config: dict[str, Any]) -> ModuleType:
    """Return the module of the family of a config.json: that of its architecture, else that of its model_type.

    Raises CheckpointError for an unsupported model.
    """
    model_type, named = config.get("model_type"), config.get("architectures")
    architectures = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    for name in (*architectures, model_type):
        if name in FAMILIES:
            return FAMILIES[name]
    architecture = f" and architecture {architectures[0]!r}" if architectures else ""
    raise CheckpointError(
        f"config.json has model_type {model_type!r}{architecture}. d3mlx runs only checkpoints of "
        f"{', '.join(sorted(FAMILIES))}."
    )


def missing_fields(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the fields that a config.json of a supported model lacks and that its family knows.

    names: names of the checkpoint, in which a family may look for them.
    """
    traits: Traits = family_of(config).TRAITS
    return traits.missing_fields(config, names)


def family_named(name: str) -> ModuleType:
    """Return the module of a family by its name. Raises ConfigError for an unknown name."""
    known = {module.TRAITS.name: module for module in FAMILIES.values()}
    if name not in known:
        raise ConfigError(f"The model family must be one of {', '.join(known)}, not {name!r}.")
    return known[name]


def families_with(attention: Attention) -> list[Traits]:
    """Return the traits of the families with this kind of attention."""
    return [module.TRAITS for module in dict.fromkeys(FAMILIES.values()) if module.TRAITS.attention == attention]


def traits_of(family: str) -> Traits:
    """Return the traits of a family by its name. Raises ConfigError as `family_named` does."""
    traits: Traits = family_named(family).TRAITS
    return traits
