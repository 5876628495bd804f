"""JSON files of a checkpoint folder, and checks of config.json: its fields and its quantization."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from d3mlx.errors import CheckpointError
from d3mlx.quantization import LayerQuantization


def refuse_pointer(path: Path, start: bytes) -> None:
    """Raise CheckpointError if a file with these first bytes is a Git LFS pointer."""
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer without its data. Download the data with: git lfs pull")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises CheckpointError if it is missing or damaged."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is not a checkpoint folder: it contains no {path.name}.") from None
    refuse_pointer(path, text)
    try:
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}). Download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not contain a JSON object. Download it again.")
    return content


FIELD_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    list: ((list,), "a list"),
    dict: ((dict,), "an object"),
}
"""For each type of a field of ModelArgs: the types of its JSON values, and their name in an error."""


def check_fields(path: Path, kind: Any, config: dict[str, Any]) -> None:
    """Raise CheckpointError that names the fields of config.json that are missing, or one of a wrong type."""
    hints, missing = get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        value, hint = config.get(field.name), hints[field.name]
        choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if value is None:
            if field.default is dataclasses.MISSING or (field.name in config and type(None) not in choices):
                missing.append(field.name)
            continue
        known = [FIELD_TYPES[get_origin(choice) or choice] for choice in choices if choice is not type(None)]
        if not any(fits(value, types) for types, _ in known):
            words = " or ".join(words for _, words in known)
            raise CheckpointError(f"{path}: {field.name} must be {words}, not {value!r}.")
    if missing:
        raise CheckpointError(f"{path} has no {' and no '.join(missing)}.")


def fits(value: Any, types: tuple[type, ...]) -> bool:
    """Return whether a value of config.json has one of these types. A list must contain whole numbers.

    Infinity and NaN do not fit, and true and false are not numbers.
    """
    if isinstance(value, bool) and bool not in types:
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, types) and (not isinstance(value, list) or all(fits(item, (int,)) for item in value))


def check_end_ids(path: Path, ends: list[Any], args: Any) -> None:
    """Raise CheckpointError for an end token outside the vocabulary, or one that is the mask token."""
    for token in ends:
        if not 0 <= token < args.logit_width:
            raise CheckpointError(
                f"{path} has end token {token}, which is outside the vocabulary of {args.logit_width}."
            )
        if token == args.mask_token_id:
            raise CheckpointError(f"{path} uses token {token} both as mask token and as end token.")


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_quantization(path: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError unless the weights are floats or quantized by MLX."""
    quantization = config.get("quantization")
    if quantization is None:
        foreign = config.get("quantization_config")
        if foreign:
            method = foreign.get("quant_method", "another tool") if isinstance(foreign, dict) else "another tool"
            raise CheckpointError(
                f"{path} says that the weights were quantized by {method}, which d3mlx cannot read. Use the original "
                "checkpoint, or one quantized by MLX."
            )
        return
    entries = [quantization]
    if isinstance(quantization, dict):
        for name, value in quantization.items():
            if ("." in name or name == "lm_head") and not isinstance(value, dict | bool):
                raise CheckpointError(
                    f"{path} has the quantization {value!r} for {name}. It must be an object, true or false."
                )
        entries += [value for value in quantization.values() if isinstance(value, dict)]
    if any(LayerQuantization.read(entry) is None for entry in entries):
        raise CheckpointError(
            f"{path} has a quantization whose bits, group_size or mode MLX does not support. Convert the model again."
        )
