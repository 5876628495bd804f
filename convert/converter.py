"""The stages of a conversion: check, plan, write the small files, stream the weights, rename the folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten
from mlx_lm.utils import save_config

from d3mlx.checkpoints.checkpoint import Checkpoint, open_checkpoint
from d3mlx.checkpoints.config import read_json
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.tokenizer import configured_end_ids, load_tokenizer
from d3mlx.convert.card import Origin, write_card
from d3mlx.convert.recipe import Plan, Recipe, make_plan
from d3mlx.convert.stream import Progress, units_of, write_weights
from d3mlx.convert.target import new_folder, refuse_existing, refuse_full_disk
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.quantization import bits_of

SHARD_BYTES = 5_000_000_000
"""Size limit of a weight file in bytes, as on the hub."""

SMALL_FILES = 64_000_000
"""Bytes reserved on disk for tokenizer and configuration."""


@dataclass(frozen=True)
class Summary:
    """Result of a conversion. files: number of weight files. nbytes: of all weights. bits_per_weight: their mean."""

    folder: Path
    files: int
    nbytes: int
    bits_per_weight: float


def convert(
    hf_path: str | Path,
    mlx_path: str | Path = "mlx_model",
    recipe: Recipe = Recipe(),  # noqa: B008 - a frozen value
    *,
    revision: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    name: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Convert a LLaDA or Dream checkpoint, in its original keys or in MLX layout, to an MLX folder.

    hf_path: folder or hub id. mlx_path: output folder. It must not exist, and appears only when it is complete.
    max_shard_bytes: size limit of an output file. Memory contains one output file and at most three tensors.
    name: the model's name on its card, by default that of the folder. Raises CheckpointError, ConfigError.
    """
    target = Path(os.path.expanduser(mlx_path))  # noqa: PTH111 - Path's own raises for an unknown user
    refuse_existing(target)
    if max_shard_bytes < 1:
        raise ConfigError(f"The size limit of a file must be 1 byte or more, not {max_shard_bytes}.")
    source = fetch(str(hf_path), revision)
    if source.folder.resolve() in target.resolve().parents:
        raise ConfigError(f"{target} is inside the source checkpoint. Choose a folder outside it.")
    checkpoint = open_checkpoint(source)
    checkpoint.check_keys()
    plan = make_plan(checkpoint, recipe)
    tokenizer = load_tokenizer(checkpoint)
    origin = Origin(name or target.name, str(hf_path), weights_summary(plan))
    nbytes = sum(unit.nbytes for unit in units_of(plan))
    with new_folder(target) as folder:
        refuse_full_disk(folder, nbytes + SMALL_FILES)
        write_small_files(folder, checkpoint, tokenizer, plan.config, origin)
        progress(0, nbytes)
        try:
            files = write_weights(checkpoint, plan, folder, max_shard_bytes, progress)
        except RuntimeError as error:
            # MLX raises RuntimeError if it cannot read or write a complete file.
            raise CheckpointError(f"Cannot convert the weights: {' '.join(str(error).split())}") from error
        open_checkpoint(folder).check_keys()
    return Summary(target, len(files), nbytes, nbytes * 8 / checkpoint.parameters)


def without_auto_map(value: Any) -> Any:
    """Return a JSON value without its `auto_map` fields, at any depth: they make other loaders ask for remote code."""
    if isinstance(value, dict):
        return {name: without_auto_map(item) for name, item in value.items() if name != "auto_map"}
    return [without_auto_map(item) for item in value] if isinstance(value, list) else value


def write_small_files(
    folder: Path, checkpoint: Checkpoint, tokenizer: Any, config: dict[str, Any], origin: Origin
) -> None:
    """Write all files except the weights: config.json, tokenizer, generation_config.json, model card."""
    save_config(without_auto_map(config), folder / "config.json")
    write_tokenizer(tokenizer, folder)
    write_generation_config(checkpoint, tokenizer, folder)
    write_card(folder, checkpoint.folder, origin)


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer's files. Raises CheckpointError."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        # Invalid names and types of chat templates are detected only here, with many types of errors.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"Cannot write the checkpoint's tokenizer: {reason}") from error
    path = folder / "tokenizer_config.json"
    fields = without_auto_map(read_json(path))
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_generation_config(checkpoint: Checkpoint, tokenizer: Any, folder: Path) -> None:
    """Write the source's fields and all ids that end an answer, which mlx-lm's tools read from this file."""
    path = checkpoint.folder / "generation_config.json"
    fields = without_auto_map(read_json(path)) if path.is_file() else {}
    fields["eos_token_id"] = sorted(tokenizer.eos_token_ids) or configured_end_ids(checkpoint, None)
    (folder / "generation_config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def weights_summary(plan: Plan) -> str:
    """Return a phrase for the model card about dtype or quantization of the weights."""
    settings = plan.config.get("quantization")
    if not settings:
        kinds = {str(value.dtype).removeprefix("mlx.core.") for _, value in tree_flatten(plan.skeleton.parameters())}
        return f"weights in {' and '.join(sorted(kinds))}"
    bits = " and ".join(map(str, bits_of(settings)))
    return f"{settings.get('mode', 'affine')} quantization, {bits} bits, groups of {settings['group_size']}"
