"""Headers of safetensors files, which list the tensors of a checkpoint folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from d3mlx.checkpoints.config import read_json, refuse_pointer
from d3mlx.errors import CheckpointError

INDEX = "model.safetensors.index.json"
"""Name of the file that lists the weight file of each tensor."""

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "U32": 4,
    "I16": 2,
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header. dtype: its name in the header. file: name of the weight file."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * DTYPE_BYTES.get(self.dtype, 1)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name. Raises CheckpointError if it is truncated or damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            start += file.read(min(int.from_bytes(start, "little"), size))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}. Check its permissions, or download it again."
        ) from error
    return parse_file(path, size, start)


def parse_file(path: Path, size: int, start: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    path: the file, for errors. size: bytes of the file. start: the first bytes, at least to the end of the header.
    Raises CheckpointError if the file is truncated or damaged.
    """
    refuse_pointer(path, start)
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        raise damaged(path)
    tensors, end = parse_header(path, start[8 : 8 + length])
    if size != 8 + length + end:
        raise damaged(path)
    return tensors


def damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is truncated or damaged. Download it again.")


def parse_header(path: Path, text: bytes) -> tuple[dict[str, Tensor], int]:
    """Return the tensors that a header describes, and the number of bytes of their data.

    path: the file, for errors. Raises CheckpointError if the data of tensors overlap, leave gaps, or do not have the
    length that the shape requires. Such a file is damaged.
    """
    try:
        header = json.loads(text)
        notes = header.pop("__metadata__", None) or {}
        if not all(isinstance(note, str) for note in notes.values()):
            raise damaged(path)
        tensors = {name: Tensor(entry["dtype"], tuple(entry["shape"]), path.name) for name, entry in header.items()}
        spans = sorted((*entry["data_offsets"], name) for name, entry in header.items())
        end = 0
        for first, last, name in spans:
            tensor = tensors[name]
            complete = tensor.dtype not in DTYPE_BYTES or last - first == tensor.nbytes
            if first != end or last < first or not complete or min(tensor.shape, default=0) < 0:
                raise CheckpointError(f"{path} has wrong offsets for the data of {name}. Download it again.")
            end = last
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise damaged(path) from None
    return tensors, end


def read_weight_map(index: Path) -> dict[str, str]:
    """Return the file of each tensor that an index lists. Raises CheckpointError."""
    weight_map = read_json(index).get("weight_map", {})
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} has no valid weight_map. Download it again.")
    return weight_map


def read_index(index: Path, names: set[str]) -> dict[str, str]:
    """Return the file of each tensor. Raises CheckpointError unless the index lists the files `names` and no others."""
    weight_map = read_weight_map(index)
    listed = set(weight_map.values())
    for name in sorted(listed - names):
        raise CheckpointError(f"{index} lists {name}, which is missing. Download the checkpoint again.")
    for name in sorted(names - listed):
        raise CheckpointError(
            f"{index.parent / name} is not listed in the index, so it may belong to another version. Remove it."
        )
    return weight_map
