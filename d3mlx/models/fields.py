"""Checks of the fields of config.json that change the forward. Unsupported values are refused."""

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
"""The kinds of rotary positions that all decoders support, each with its required and its optional fields."""

LARGEST = 1e30
"""Upper bound of the fields of rotary positions."""

MOST_BLOCK = 4096
"""Largest block of a block-causal model."""

WITHOUT_EFFECT = {"rope_type", "type", "rope_theta"}
"""Fields of a rope_scaling that do not change it or are read elsewhere."""


def refuse_other_values(config: Mapping[str, Any], published: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise CheckpointError for a field with an unsupported value.

    published: for each field, the supported values, those of released checkpoints. An absent or null field is accepted.
    """
    for name, values in published.items():
        value = config.get(name)
        if value is not None and value not in values:
            raise CheckpointError(
                f"config.json has {name} = {value!r}, which d3mlx does not support. All released checkpoints of this "
                f"architecture have {listed(map(repr, values)) or 'no value'} there."
            )


def rope_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return rope_theta and rope_scaling of a config.json, without those that the config does not have.

    `rope_parameters`, in which transformers 5 writes both, is also read. Raises CheckpointError for an unsupported
    kind of rotary positions and for contradictory fields.
    """
    together = full_attention_rope(config.get("rope_parameters"))
    scaling = config.get("rope_scaling")
    for name, value in (("rope_parameters", together), ("rope_scaling", scaling)):
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"config.json: {name} must be an object, not {value!r}.")
    fields: dict[str, Any] = {}
    thetas = [values["rope_theta"] for values in (config, together or {}) if values.get("rope_theta") is not None]
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
    """Return the value of a rotary field. Raises CheckpointError if it is not a number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < LARGEST:
        raise CheckpointError(
            f"config.json has {name} = {value!r} for its rotary positions. Use a number above 0 and below {LARGEST:g}."
        )
    return value


def check_block_size(name: str, size: int) -> None:
    """Raise CheckpointError if a field is not a possible block size."""
    if not 1 <= size <= MOST_BLOCK:
        raise CheckpointError(f"config.json has {name} = {size}. Use a number of tokens from 1 to {MOST_BLOCK}.")


def full_attention_rope(parameters: Any) -> Any:
    """Return rope_parameters, or those of full attention if each kind of layer has its own."""
    if isinstance(parameters, dict) and parameters and all(isinstance(value, dict) for value in parameters.values()):
        if set(parameters) != {"full_attention"}:
            raise CheckpointError(
                f"config.json has rotary positions for layers of the kinds {listed(parameters)}. d3mlx supports only "
                "full attention."
            )
        return parameters["full_attention"]
    return parameters


def checked_rope(scaling: dict[str, Any]) -> dict[str, Any] | None:
    """Return a supported rope_scaling, None for the default kind. Raises CheckpointError for an unsupported one."""
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ROPE_KINDS:
        raise CheckpointError(
            f"config.json has rotary positions of kind {kind!r}. d3mlx supports only {listed(ROPE_KINDS)}."
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
                "support."
            )
        positive(name, value)
    values.pop("partial_rotary_factor", None)
    return None if kind == "default" else {"rope_type": kind, **values}
