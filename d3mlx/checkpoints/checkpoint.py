"""A checkpoint folder, described by its config.json and safetensors headers. No weights are loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from d3mlx.checkpoints.config import as_list, check_end_ids, check_fields, check_quantization, read_json
from d3mlx.checkpoints.headers import INDEX, Tensor, read_header, read_index
from d3mlx.checkpoints.hub import WEIGHTS, Source
from d3mlx.errors import CheckpointError
from d3mlx.files import MODEL_FILES, refuse_special
from d3mlx.models import get_model_classes, missing_fields, traits_of
from d3mlx.quantization import FLOATS, LayerQuantization

WRAPPERS = {
    "module.": "a parallel training run",
    "_orig_mod.": "a compiled model",
    "base_model.": "a model with PEFT adapters",
    "language_model.": "a model of text and images",
}
"""Prefixes of tensor names that other programs add, and what they come from."""

MOST_TOKENS = 1 << 24
"""Upper bound of the size of a vocabulary."""

SMALL = 200_000_000
"""Number of parameters below which a model runs in float32 on a CPU."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a model that this runtime supports.

    config: the content of config.json, and the fields `added` to it, which published copies lack. tensors: the stored
    tensors, by their names in the files. source: the origin of weights that are not downloaded yet.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    source: Source
    added: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def args(self) -> Any:
        """Return the family's ModelArgs. Raises CheckpointError that names a missing or invalid field."""
        path = self.folder / "config.json"
        _, kind = get_model_classes(self.config)
        try:
            check_fields(path, kind, self.config)
        except CheckpointError as error:
            if name := foreign(self.config):
                raise CheckpointError(
                    f"{path} names the architecture {name}, which d3mlx does not support for this model_type: "
                    f"{str(error).removeprefix(f'{path} ')}"
                ) from error
            raise
        try:
            args = kind.from_dict(self.config)  # type: ignore[attr-defined]
            shape = args.shape()
            empty = min(shape.layers, shape.hidden, shape.ff, shape.kv_heads, args.logit_width, args.context) < 1
            new_tokens = args.max_new_tokens
            mask_fits = 0 <= args.mask_token_id < args.logit_width
            ends = as_list(args.eos_token_id)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path} has a field of the wrong type: {error}.") from error
        if empty or not ends:
            raise CheckpointError(f"{path} describes a model without layers, width, context or end token.")
        if new_tokens < 1:
            raise CheckpointError(f"{path}: max_new_tokens must be at least 1, not {new_tokens}.")
        if args.logit_width > MOST_TOKENS:
            raise CheckpointError(
                f"{path} describes a vocabulary of {args.logit_width:,} tokens. The limit is {MOST_TOKENS:,}."
            )
        if not mask_fits:
            raise CheckpointError(
                f"{path} has mask token {args.mask_token_id}, which is outside the vocabulary of {args.logit_width}."
            )
        check_end_ids(path, ends, args)
        return args

    @property
    def family(self) -> str:
        kind, _ = get_model_classes(self.config)
        return str(kind.family)  # type: ignore[attr-defined]

    @cached_property
    def quantization(self) -> dict[str, Any] | None:
        """Return config.json's `quantization` with this runtime's names of layers; None if there is none.

        The entry of a layer is its settings, True for those of the model, or False for a layer in floats. mlx-lm 0.22
        to 0.25 wrote an entry for every layer, by the names in the file.
        """
        settings = self.config.get("quantization")
        if settings is None:
            return None
        marker = mx.array(0)
        named: dict[str, Any] = {}
        for name, value in settings.items():
            own = self.empty.sanitize({f"{name}.weight": marker}) if isinstance(value, dict | bool) else [name]
            named |= {new.removesuffix(".weight"): value for new in own}
        return named

    @property
    def own_config(self) -> dict[str, Any]:
        """Return the config.json for a new folder with this model, with this runtime's names of layers."""
        if self.quantization is None:
            return dict(self.config)
        settings = {name: value for name, value in self.quantization.items() if value is not True}
        return {**self.config, "quantization": settings, "quantization_config": settings}

    def layer_quantization(self, path: str) -> LayerQuantization | None:
        """Return the quantization of the layer at `path`, None for floats. The model must be quantized."""
        assert self.quantization is not None
        entry = self.quantization.get(path, True)
        if entry is False:
            return None
        return LayerQuantization.read(self.quantization if entry is True else entry)

    @cached_property
    def empty(self) -> Any:
        """Return the model before quantization, with random weights that are never computed."""
        kind, _ = get_model_classes(self.config)
        try:
            # MLX arrays are lazy: no memory is allocated for the random weights of this model.
            return kind(self.args)
        except (OverflowError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.folder / 'config.json'} describes a model that cannot exist.") from error

    @cached_property
    def skeleton(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter before quantization, by name."""
        return {name: tuple(value.shape) for name, value in tree_flatten(self.empty.parameters())}

    @property
    def otherwise(self) -> str:
        """Return the end of an error about tensors: an unsupported architecture that config.json names, or nothing."""
        return f"; config.json names the architecture {name}" if (name := foreign(self.config)) else ""

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
        """Return the bytes of the weights in memory. in_float32: small models are converted, as on a CPU."""
        return self.parameters * 4 if in_float32 and self.parameters < SMALL else self.nbytes

    def bytes_of_float(self, in_float32: bool) -> int:
        """Return the bytes of a number of activations, which have the dtype of the norms. in_float32: as above."""
        norms = [tensor for name, tensor in self.tensors.items() if tensor.dtype in FLOATS and len(tensor.shape) == 1]
        small = in_float32 and self.parameters < SMALL
        return 4 if small or any(tensor.dtype == "F32" for tensor in norms) else 2

    def renamed(self) -> dict[str, Tensor]:
        """Return the tensors by this runtime's names. Raises CheckpointError if two tensors have the same name."""
        marker = mx.array(0)
        renamed: dict[str, Tensor] = {}
        origins: dict[str, str] = {}
        stack_of = getattr(self.empty, "stack_of", lambda name: None)
        stacks: dict[str, dict[int, str]] = {}
        for name, tensor in self.tensors.items():
            if place := stack_of(name):
                stacks.setdefault(place[0], {})[place[1]] = name
                continue
            for new in self.empty.sanitize({name: marker}):
                if new in renamed:
                    raise CheckpointError(
                        f"The checkpoint {self.folder} contains the same weights as {origins[new]} and as {name}. "
                        "Remove one of them."
                    )
                renamed[new], origins[new] = tensor, name
        return renamed | {name: self.stacked(parts) for name, parts in stacks.items()}

    def stacked(self, parts: dict[int, str]) -> Tensor:
        """Return one tensor for those that are stacked, the names of which `parts` has by number.

        Raises CheckpointError for the first one that is missing or differs from the others.
        """
        first = self.tensors[parts[min(parts)]]
        for number in range(max(parts) + 1):
            if number not in parts:
                raise CheckpointError(
                    f"The checkpoint {self.folder} contains {parts[max(parts)]}, but not the same tensor of expert "
                    f"{number}. Download it again."
                )
            tensor = self.tensors[parts[number]]
            if (tensor.shape, tensor.dtype) != (first.shape, first.dtype):
                raise CheckpointError(
                    f"The tensor {parts[number]} has shape {list(tensor.shape)} and dtype {tensor.dtype}, but "
                    f"{parts[min(parts)]} has {list(first.shape)} and {first.dtype}."
                )
        return Tensor(first.dtype, (len(parts), *first.shape), first.file)

    def refuse_wrappers(self) -> None:
        """Raise CheckpointError if all names of tensors have a prefix that another program added."""
        for prefix, wrapper in WRAPPERS.items():
            if self.tensors and all(name.startswith(prefix) for name in self.tensors):
                raise CheckpointError(
                    f"The names of the tensors in {self.folder} begin with {prefix!r}, as {wrapper} writes them. Save "
                    "the model itself."
                )

    def check_keys(self) -> None:
        """Raise CheckpointError that names the first tensor that is unknown, missing, or of a wrong shape or dtype."""
        layers = self.args.shape().layers
        if layers > len(self.tensors):
            raise CheckpointError(f"config.json has {layers} layers, but {self.folder} contains fewer tensors.")
        self.refuse_wrappers()
        tensors = self.renamed()
        if self.quantization and not any(name.endswith(".scales") for name in tensors):
            raise CheckpointError(
                f"The weights in {self.folder} are not quantized, but config.json says so. Convert the model again."
            )
        expected: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
        for name, shape in self.skeleton.items():
            path, _, leaf = name.rpartition(".")
            packed = self.quantization and leaf == "weight" and f"{path}.scales" in tensors
            settings = self.layer_quantization(path) if packed else None
            if self.quantization and leaf == "weight" and not packed and self.quantization.get(path):
                raise CheckpointError(
                    f"Layer {path} in {self.folder} is not quantized, but config.json says so. Convert the model again."
                )
            if settings is not None:
                expected |= {f"{path}.{part}": kind for part, kind in settings.parts(shape).items()}
            else:
                expected[name] = shape, FLOATS
        for name, (shape, dtypes) in expected.items():
            if name not in tensors:
                raise CheckpointError(f"The checkpoint {self.folder} lacks the tensor {name}{self.otherwise}.")
            tensor = tensors[name]
            if tensor.shape != shape:
                raise CheckpointError(
                    f"The tensor {name} has shape {list(tensor.shape)}, but config.json requires {list(shape)}"
                    f"{self.otherwise}."
                )
            # MLX reads 8-bit floats as integers, so the model would compute with wrong weights.
            if tensor.dtype not in dtypes:
                raise CheckpointError(
                    f"The tensor {name} is stored as {tensor.dtype}, which d3mlx cannot use. Use a checkpoint in "
                    "16-bit or 32-bit floats, or one quantized by MLX."
                )
        for name in tensors:
            if name not in expected:
                raise CheckpointError(
                    f"The checkpoint {self.folder} contains the tensor {name}, which this model does not have"
                    f"{self.otherwise}."
                )


def foreign(config: dict[str, Any]) -> str:
    """Return the architecture that config.json names if the family does not support it, else an empty text."""
    name = architecture_of(config)
    kind, _ = get_model_classes(config)
    known = traits_of(str(kind.family)).architectures  # type: ignore[attr-defined]
    return "" if name in (*known, config["model_type"]) else name


def architecture_of(config: dict[str, Any]) -> str:
    """Return the architecture that config.json names, or its model_type if there is none."""
    named = [name for name in as_list(config.get("architectures")) if isinstance(name, str)]
    return named[0] if named else str(config["model_type"])


def open_checkpoint(source: Source | Path) -> Checkpoint:
    """Return the checkpoint in a folder, from its config and headers. The weights may still be on the Hub.

    Raises CheckpointError with the first problem.
    """
    source = Source(source) if isinstance(source, Path) else source
    folder = source.folder
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} contains LoRA adapters without their model. Give the model, and the folder as adapter path."
        )
    files = (path for kind in MODEL_FILES for path in sorted(folder.glob(kind)))
    refuse_special((path for path in files if path.name not in source.headers), CheckpointError)
    config = read_json(folder / "config.json")
    if config.get("model_type") is None:
        raise CheckpointError(
            f"{folder / 'config.json'} has no model_type, so the family of the model is unknown. Download it again."
        )
    if not isinstance(config["model_type"], str):
        raise CheckpointError(f"{folder / 'config.json'}: model_type must be a text, not {config['model_type']!r}.")
    get_model_classes(config)
    if "model_file" in config:
        raise CheckpointError(f"{folder / 'config.json'} asks to run its own code (model_file). Remove that field.")
    check_quantization(folder / "config.json", config)
    if (folder / "generation_config.json").is_file():
        read_json(folder / "generation_config.json")
    index = folder / INDEX
    names = sorted({path.name for path in folder.glob(WEIGHTS)} | {*source.headers})
    if not names:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        if pickled:
            raise CheckpointError(
                f"{folder} contains its weights as pickled code ({pickled[0].name}), which d3mlx never runs. Convert "
                "them to safetensors first."
            )
        raise CheckpointError(f"{folder} contains no model*.safetensors. d3mlx reads weights only from such files.")
    weight_map = read_index(index, {*names}) if index.is_file() else {}
    tensors: dict[str, Tensor] = {}
    for file in names:
        header = source.headers[file] if file in source.headers else read_header(folder / file)
        if double := next((name for name in header if name in tensors), None):
            raise CheckpointError(
                f"{folder} contains the tensor {double} in {tensors[double].file} and in {file}. Remove one of them."
            )
        tensors |= header
    for name, file_name in weight_map.items():
        if name not in tensors or tensors[name].file != file_name:
            raise CheckpointError(
                f"{index} lists {name} in {file_name}, which does not contain it. Download the checkpoint again."
            )
    # The folder of a Hub id is a commit, two levels below a folder with the name of the repository.
    known: list[Any] = [
        config.get("_name_or_path"),
        source.repo,
        folder.name,
        *(parent.name for parent in folder.parents[1:2]),
    ]
    added = missing_fields(config, [name for name in known if isinstance(name, str)])
    checkpoint = Checkpoint(folder, config | added, tensors, source, added)
    _ = checkpoint.args
    return checkpoint
