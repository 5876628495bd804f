"""Fields of config.json that change what a model computes: read, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d3mlx.errors import CheckpointError, listed

ROPE_KINDS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, set()),
    "yarn": ({"factor"}, {"original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}),
}
"""The kinds of rotary positions that every decoder runs with, the fields that each needs, and those it may have."""

LARGEST = 1e30
"""No field of rotary positions is larger."""

WITHOUT_EFFECT = {"rope_type", "type", "rope_theta"}


def refuse_other_values(config: Mapping[str, Any], published: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise CheckpointError for a field whose value is not one of those that the runtime computes.

    published: for each field, the values of released checkpoints; a field that is absent or null has one of them.
    """
    for name, values in published.items():
        value = config.get(name)
        if value is not None and value not in values:
            raise CheckpointError(
                f"config.json has {name} = {value!r}; d3mlx runs {listed(map(repr, values)) or 'no value of it'}, as "
                "every released checkpoint of this architecture has it."
            )


def rope_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return rope_theta and rope_scaling of a config.json; either is left out where the config has none.

    `rope_parameters`, in which transformers 5 writes both, is read as well. Raises CheckpointError for a kind that
    does not run with every decoder, and for two places that contradict each other.
    """
    together = one_rope(config.get("rope_parameters"))
    scaling = config.get("rope_scaling")
    for name, value in (("rope_parameters", together), ("rope_scaling", scaling)):
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"config.json: {name} must be an object, not {value!r}.")
    fields: dict[str, Any] = {}
    thetas = [place["rope_theta"] for place in (config, together or {}) if place.get("rope_theta") is not None]
    if len(set(map(repr, thetas))) > 1:
        raise CheckpointError(f"config.json has two values of rope_theta: {thetas[0]} and {thetas[1]}.")
    if thetas:
        fields["rope_theta"] = positive("rope_theta", thetas[0])
    kinds = [checked_rope(value) for value in (scaling, together) if value is not None]
    if len(kinds) == 2 and kinds[0] != kinds[1]:
        raise CheckpointError("config.json has two kinds of rotary positions, in rope_scaling and rope_parameters.")
    if kinds:
        fields["rope_scaling"] = kinds[0]
    return fields


def positive(name: str, value: Any) -> float:
    """Return a number above 0 of the rotary positions. Raises CheckpointError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < LARGEST:
        raise CheckpointError(
            f"config.json has {name} = {value!r} for its rotary positions; it is a number above 0 and below "
            f"{LARGEST:g}."
        )
    return value


def one_rope(parameters: Any) -> Any:
    """Return rope_parameters, or those of full attention where each kind of layer has its own."""
    if isinstance(parameters, dict) and parameters and all(isinstance(value, dict) for value in parameters.values()):
        if set(parameters) != {"full_attention"}:
            raise CheckpointError(
                f"config.json has rotary positions for layers of the kinds {listed(parameters)}; d3mlx runs full "
                "attention only."
            )
        return parameters["full_attention"]
    return parameters


def checked_rope(scaling: dict[str, Any]) -> dict[str, Any] | None:
    """Return a rope_scaling that runs with every decoder; None for the default kind. Raises CheckpointError."""
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ROPE_KINDS:
        raise CheckpointError(
            f"config.json asks for rotary positions of kind {kind!r}; d3mlx runs {listed(ROPE_KINDS)}."
        )
    needed, possible = ROPE_KINDS[kind]
    if missing := sorted(needed - set(scaling)):
        raise CheckpointError(f"config.json has rotary positions of kind {kind!r} without {missing[0]}.")
    values = {name: value for name, value in scaling.items() if name not in WITHOUT_EFFECT and value is not None}
    for name, value in values.items():
        if name == "partial_rotary_factor" and value == 1:
            continue
        if name not in needed | possible:
            raise CheckpointError(
                f"config.json has rotary positions of kind {kind!r} with {name} = {value!r}, which d3mlx does not "
                "compute."
            )
        positive(name, value)
    values.pop("partial_rotary_factor", None)
    return None if kind == "default" else {"rope_type": kind, **values}
