"""Conversion of weights from one folder to another, one tensor at a time.

Memory contains at most a few tensors and one output file. Arrays are read lazily, computed one by one, and deleted
when their file is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from d3mlx.checkpoints.checkpoint import Checkpoint
from d3mlx.convert.recipe import Plan, casts
from d3mlx.errors import CheckpointError
from d3mlx.quantization import LayerQuantization

Arrays = dict[str, mx.array]

Progress = Callable[[int, int], None]
"""Receives the number of bytes converted so far, and their total."""

PARTS = ("weight", "scales", "biases")

PIECES = 64
"""Pieces of a tensor in the microscaled modes. MLX's CPU backend needs about 40 arrays of the size of its input."""


@dataclass(frozen=True)
class Unit:
    """A layer, whose arrays are computed together. nbytes: their size in the output."""

    path: str
    nbytes: int


def path_and_leaf(name: str) -> tuple[str, str]:
    """Return the path of a parameter's layer, and the parameter's own name in that layer."""
    path, _, leaf = name.rpartition(".")
    return path, leaf


def units_of(plan: Plan) -> list[Unit]:
    """Return the layers of the output in the order of the model."""
    sizes: dict[str, int] = {}
    for name, value in tree_flatten(plan.skeleton.parameters()):
        path, _ = path_and_leaf(name)
        sizes[path] = sizes.get(path, 0) + value.nbytes
    return [Unit(path, size) for path, size in sizes.items()]


def shards_of(units: list[Unit], limit: int) -> list[list[Unit]]:
    """Return the layers of each file. A file has at most `limit` bytes, or contains a single larger layer."""
    shards: list[list[Unit]] = [[]]
    size = 0
    for unit in units:
        if shards[-1] and size + unit.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(unit)
        size += unit.nbytes
    return shards


@contextmanager
def no_cache() -> Iterator[None]:
    """Return freed buffers to the system at once; by default MLX keeps them for later arrays."""
    before = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(before)


def by_rows(function: Callable[..., Any], arrays: Sequence[mx.array], pieces: int) -> list[mx.array]:
    """Return the results of `function`, computed on at most `pieces` slices of the first axis of all arrays."""
    rows = arrays[0].shape[0]
    step = -(-rows // pieces)
    parts = []
    for first in range(0, rows, step):
        parts.append(function(*(array[first : first + step] for array in arrays)))
        mx.eval(parts[-1])
    return [mx.concatenate(list(column)) if len(column) > 1 else column[0] for column in zip(*parts, strict=True)]


def pieces_of(how: LayerQuantization) -> int:
    """Return the number of slices in which a layer is quantized or dequantized."""
    return 1 if how.mode == "affine" else PIECES


def quantize_weight(weight: mx.array, how: LayerQuantization) -> Arrays:
    """Return the arrays of a quantized layer for a float weight [rows, width]: packed words, scales, affine biases."""
    arrays = by_rows(lambda rows: mx.quantize(rows, *how), [weight], pieces_of(how))
    return dict(zip(PARTS, arrays, strict=False))


def dequantize_weight(parts: Arrays, how: LayerQuantization) -> mx.array:
    """Return the float weight [rows, width] of a quantized layer. Removes its arrays from `parts`."""

    def floats(weight: mx.array, scales: mx.array, biases: mx.array | None = None) -> list[mx.array]:
        return [mx.dequantize(weight, scales, biases, *how)]

    return by_rows(floats, [parts.pop(part) for part in PARTS if part in parts], pieces_of(how))[0]


def refuse_unfinite(path: str, parts: Arrays, what: str) -> None:
    """Raise CheckpointError if a layer contains NaN or infinity, which would spread to all results."""
    for leaf, value in parts.items():
        if mx.issubdtype(value.dtype, mx.floating) and not mx.isfinite(value).all().item():
            raise CheckpointError(f"{what} {path}.{leaf}.")


class Stream:
    """The converted arrays of a checkpoint, layer by layer."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan):
        self.plan = plan
        stored: Arrays = {}
        for file in sorted({tensor.file for tensor in checkpoint.tensors.values()}):
            arrays: Any = mx.load(str(checkpoint.folder / file))
            stored |= arrays
        self.source: dict[str, Arrays] = {}
        for name, value in plan.skeleton.sanitize(stored).items():
            path, leaf = path_and_leaf(name)
            self.source.setdefault(path, {})[leaf] = value

    def convert(self, unit: Unit) -> Arrays:
        """Return the converted arrays of a layer by full name. Releases the source arrays."""
        plan = self.plan
        parts = self.source.pop(unit.path)
        refuse_unfinite(unit.path, parts, "The source contains NaN or infinity in")
        parts = self.cast(unit.path, parts)
        if unit.path in plan.dequantize:
            # For mxfp4, nvfp4 and mxfp8, MLX dequantizes to bfloat16 whatever the scales' dtype, so cast again.
            parts["weight"] = dequantize_weight(parts, plan.dequantize[unit.path])
            parts = self.cast(unit.path, parts)
        if unit.path in plan.quantize:
            parts |= quantize_weight(parts.pop("weight"), plan.quantize[unit.path])
        mx.eval(parts)
        refuse_unfinite(unit.path, parts, "float16 is too small for some values. Convert with --dtype bfloat16:")
        return {f"{unit.path}.{leaf}": value for leaf, value in parts.items()}

    def cast(self, path: str, parts: Arrays) -> Arrays:
        """Return a layer's arrays with floats in the plan's dtype, unless the model keeps that of a weight."""
        dtype = self.plan.dtype

        def changes(leaf: str, value: mx.array) -> bool:
            floating = mx.issubdtype(value.dtype, mx.floating)
            return dtype is not None and floating and casts(self.plan.skeleton, f"{path}.{leaf}")

        return {leaf: value.astype(dtype) if changes(leaf, value) else value for leaf, value in parts.items()}


def write_weights(checkpoint: Checkpoint, plan: Plan, folder: Path, limit: int, progress: Progress) -> list[Path]:
    """Write safetensors files of at most `limit` bytes and their index, in mlx-lm's layout. Return their paths."""
    units = units_of(plan)
    shards = shards_of(units, limit)
    total = sum(unit.nbytes for unit in units)
    stream = Stream(checkpoint, plan)
    weight_map: dict[str, str] = {}
    files: list[Path] = []
    done = 0
    with no_cache():
        for i, shard in enumerate(shards):
            name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            arrays: Arrays = {}
            for unit in shard:
                arrays |= stream.convert(unit)
                done += unit.nbytes
                progress(done, total)
            mx.save_safetensors(str(folder / name), arrays, metadata={"format": "mlx"})
            weight_map |= dict.fromkeys(arrays, name)
            files.append(folder / name)
    metadata = {"total_size": total, "total_parameters": checkpoint.parameters}
    index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=4))
    return files
