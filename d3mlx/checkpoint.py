"""What lies in a checkpoint folder, read from config.json and safetensors headers without loading a weight."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from d3mlx.errors import CheckpointError
from d3mlx.models import get_model_classes

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U32": 4, "I16": 2, "U8": 1, "I8": 1}
SMALL = 200_000_000
"""Parameters below which a model is worth running in float32 on a CPU."""

QUANTIZATION_PARTS = ("scales", "biases")
FLOATS = ("F32", "F16", "BF16")
PACKED = ("U32", "U8")
"""MLX packs quantized weights into 32-bit words; some modes keep their scales in bytes."""


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * DTYPE_BYTES.get(self.dtype, 1)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} holds no {path.name}; it is no checkpoint folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no JSON object; download it again.")
    return found


def read_header(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises CheckpointError if the file is shorter than its header says."""
    damaged = CheckpointError(f"{path} is truncated or damaged; download it again.")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise damaged
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            tensors = {name: Tensor(entry["dtype"], tuple(entry["shape"]), path.name) for name, entry in header.items()}
            whole = size == 8 + length + end
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise damaged from None
    if not whole:
        raise damaged
    return tensors


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a model this runtime knows."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @cached_property
    def args(self) -> Any:
        """The family's ModelArgs. Raises CheckpointError naming a missing or wrong field."""
        path = self.folder / "config.json"
        _, kind = get_model_classes(self.config)
        needed = [
            field.name
            for field in dataclasses.fields(kind)
            if field.default is dataclasses.MISSING and self.config.get(field.name) is None
        ]
        if needed:
            raise CheckpointError(f"{path} has no {' and no '.join(needed)}; download it again.")
        try:
            args = kind.from_dict(self.config)  # type: ignore[attr-defined]
            shape = args.shape()
            empty = min(shape.layers, shape.hidden, shape.ff, shape.kv_heads, args.logit_width, args.context) < 1
            fits = 0 <= args.mask_token_id < args.logit_width
            ids = [int(token) for token in as_list(args.eos_token_id)]
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path} has a field of the wrong type: {error}.") from error
        if empty or not ids:
            raise CheckpointError(f"{path} describes a model without layers, width, context or end token.")
        if not fits:
            raise CheckpointError(
                f"{path} names mask token {args.mask_token_id}, outside the vocabulary of {args.logit_width}."
            )
        return args

    @property
    def family(self) -> str:
        kind, _ = get_model_classes(self.config)
        return str(kind.family)  # type: ignore[attr-defined]

    @property
    def quantization(self) -> dict[str, Any] | None:
        return self.config.get("quantization")

    @cached_property
    def skeleton(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes that the model has before quantization."""
        kind, _ = get_model_classes(self.config)
        # MLX arrays are lazy: nothing is allocated for the random start values of this model.
        return {name: tuple(value.shape) for name, value in tree_flatten(kind(self.args).parameters())}

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.skeleton.values())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        return self.nbytes * 8 / self.parameters

    def bytes_to_load(self, in_float32: bool) -> int:
        """Bytes that the weights take in memory; small models become float32 on a CPU."""
        return self.parameters * 4 if in_float32 and self.parameters < SMALL else self.nbytes

    def renamed(self) -> dict[str, Tensor]:
        """Tensors under this runtime's names."""
        kind, _ = get_model_classes(self.config)
        names = {name: mx.array(0) for name in self.tensors}
        kept: dict[str, Any] = kind(self.args).sanitize(names)
        original = {id(value): name for name, value in names.items()}
        return {new: self.tensors[original[id(value)]] for new, value in kept.items()}

    def check_keys(self) -> None:
        """Raise CheckpointError naming the first unknown, missing or wrongly shaped tensor."""
        found = self.renamed()
        quantized = (
            {name.rsplit(".", 1)[0] for name in found if name.endswith(".scales")} if self.quantization else set()
        )
        for name, shape in self.skeleton.items():
            if name not in found:
                raise CheckpointError(f"The checkpoint {self.folder} lacks the tensor {name}; download it again.")
            tensor, packed = found[name], name.rsplit(".", 1)[0] in quantized
            if not packed and tensor.shape != shape:
                raise CheckpointError(
                    f"The tensor {name} has shape {list(tensor.shape)} where config.json asks for {list(shape)}."
                )
            # MLX reads 8-bit floats as integers, and the model would run on nonsense.
            if tensor.dtype not in (*FLOATS, *PACKED) or (not packed and tensor.dtype in PACKED):
                raise CheckpointError(
                    f"The tensor {name} is stored as {tensor.dtype}, which d3mlx cannot read; use a checkpoint in "
                    "16-bit or 32-bit floats, or one quantized by MLX."
                )
        for name in found:
            module, leaf = name.rsplit(".", 1) if "." in name else ("", name)
            if name not in self.skeleton and not (module in quantized and leaf in QUANTIZATION_PARTS):
                raise CheckpointError(
                    f"The checkpoint {self.folder} holds a tensor {name} that this model has no place for."
                )


def bits_of(quantization: dict[str, Any]) -> list[int]:
    """The bits per weight that a quantization's layers have, lowest first."""
    own = {layer["bits"] for layer in quantization.values() if isinstance(layer, dict) and "bits" in layer}
    return sorted(own | {quantization["bits"]})


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_quantization(path: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError unless the weights are plain or quantized by MLX."""
    quantization = config.get("quantization")
    if quantization is None:
        foreign = config.get("quantization_config")
        if foreign:
            method = foreign.get("quant_method", "another tool") if isinstance(foreign, dict) else "another tool"
            raise CheckpointError(
                f"{path} says that the weights were quantized by {method}, which d3mlx cannot read; use the original "
                "checkpoint, or one quantized by MLX."
            )
    elif not isinstance(quantization, dict) or not all(
        isinstance(quantization.get(name), int) for name in ("bits", "group_size")
    ):
        raise CheckpointError(f"{path} has a quantization without bits and group_size; convert the model again.")


def check_index(index: Path) -> None:
    """Raise CheckpointError unless every file that an index points at is there."""
    weight_map = read_json(index).get("weight_map", {})
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} has no valid weight_map; download it again.")
    missing = [name for name in sorted(set(weight_map.values())) if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"{index} lists {missing[0]}, which is not there; download the checkpoint again.")


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder's config and headers. Raises CheckpointError with the one thing that is wrong."""
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds LoRA adapters without their model; give the model, and the folder as adapter path."
        )
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{folder / 'config.json'} names no model_type, so it is no checkpoint of a known family."
        )
    get_model_classes(config)
    if "model_file" in config:
        raise CheckpointError(f"{folder / 'config.json'} asks to run its own code (model_file); remove that field.")
    check_quantization(folder / "config.json", config)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        check_index(index)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        if pickled:
            raise CheckpointError(
                f"{folder} holds its weights as pickled code ({pickled[0].name}), which is never run; convert them to "
                "safetensors first."
            )
        raise CheckpointError(f"{folder} holds no model*.safetensors; d3mlx reads weights from such files only.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_header(file)
    checkpoint = Checkpoint(folder, config, tensors)
    _ = checkpoint.args
    return checkpoint
