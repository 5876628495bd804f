"""Adapter folders, as mlx-lm or PEFT (LoRA of linear layers) writes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load_adapters

from d3mlx.checkpoints.config import read_json
from d3mlx.checkpoints.headers import Tensor, read_header
from d3mlx.errors import CheckpointError, listed
from d3mlx.files import MODEL_FILES, refuse_special
from d3mlx.quantization import FLOATS

CONFIG = "adapter_config.json"
MLX_WEIGHTS, PEFT_WEIGHTS = "adapters.safetensors", "adapter_model.safetensors"

PEFT_PREFIX = "base_model.model."
PEFT_SUFFIXES = {
    ".lora_A.weight": "lora_a",
    ".lora_B.weight": "lora_b",
    ".lora_A.default.weight": "lora_a",
    ".lora_B.default.weight": "lora_b",
}
OTHER = {"lora_a": "lora_b", "lora_b": "lora_a"}

PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "bias": ("none",),
    "modules_to_save": ([],),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "target_parameters": ([],),
}
"""Fields of PEFT's configuration that change the result of an adapter, with the values of plain LoRA."""


LARGEST = 10**9
"""Largest absolute value of a rank, a scale or an alpha."""


def adapter_weights(folder: str | Path) -> Path:
    """Return the weight file of an adapter folder, which may not exist."""
    names = (MLX_WEIGHTS, PEFT_WEIGHTS)
    return next((path for name in names if (path := Path(folder) / name).is_file()), Path(folder) / MLX_WEIGHTS)


def with_adapters(model: Any, adapter_path: str | Path) -> Any:
    """Return the model with the adapters of a folder. Raises CheckpointError with the first problem."""
    folder = Path(adapter_path)
    refuse_special((path for kind in MODEL_FILES for path in sorted(folder.glob(kind))), CheckpointError)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is not an adapter folder: it contains no {CONFIG}.")
    config = read_json(folder / CONFIG)
    read = with_peft if "peft_type" in config else with_mlx_adapters
    model = read(model, folder, config)
    model.eval()
    return model


def with_mlx_adapters(model: Any, folder: Path, config: dict[str, Any]) -> Any:
    """Return the model with adapters in mlx-lm's layout."""
    if not (folder / MLX_WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is not an adapter folder: it contains no {MLX_WEIGHTS}.")
    tensors = read_header(folder / MLX_WEIGHTS)
    if config.get("fine_tune_type") != "full":
        check_settings(folder / CONFIG, config)
        check_floats(folder / MLX_WEIGHTS, tensors)
        check_pairs(folder / MLX_WEIGHTS, tensors)
    try:
        return load_adapters(model, str(folder))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"The adapters in {folder} do not fit this model: {misfit(error, config)}") from error


def check_pairs(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise CheckpointError if a layer lacks one of its two matrices. mlx-lm would keep random values for it."""
    for name in tensors:
        layer, _, part = name.rpartition(".")
        other = f"{layer}.{OTHER[part]}" if part in OTHER else name
        if other not in tensors:
            raise CheckpointError(f"{path} contains {name}, but no {other}. Train the adapters again.")


def check_settings(path: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError if mlx-lm's configuration lacks the settings of LoRA layers."""
    for name in ("num_layers", "lora_parameters"):
        if name not in config:
            raise CheckpointError(f"{path} has no {name}. Train the adapters again.")
    layers, parameters = config["num_layers"], config["lora_parameters"]
    if isinstance(layers, bool) or not isinstance(layers, int):
        raise CheckpointError(f"{path}: num_layers must be a whole number, not {layers!r}.")
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{path}: lora_parameters must be an object, not {parameters!r}.")
    for name in ("rank", "scale"):
        if name not in parameters:
            raise CheckpointError(f"{path} has no {name} in lora_parameters. Train the adapters again.")
        if not finite(parameters[name]):
            raise CheckpointError(f"{path}: {name} must be a number up to {LARGEST:,}, not {parameters[name]!r}.")


def finite(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a number that a setting can have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def check_floats(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise CheckpointError if a tensor has a dtype that MLX does not read as floats."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{path} stores {name} as {tensor.dtype}. d3mlx reads adapters in 16-bit and 32-bit floats."
            )


def misfit(error: Exception, config: dict[str, Any]) -> str:
    """Return why adapters do not fit, with the first of the tensors that mlx-lm lists in the lines of its error."""
    first, *tensors = str(error.args[0] if error.args else error).splitlines() or [""]
    why = " ".join(first.split())
    if tensors:
        why = tensors[0].strip() + (f", and {len(tensors) - 1} tensors more" if len(tensors) > 1 else "")
    trained = config.get("model")
    return f"{why.rstrip('.')}; they were trained for {trained}." if trained else f"{why.rstrip('.')}."


def with_peft(model: Any, folder: Path, config: dict[str, Any]) -> Any:
    """Return the model with LoRA layers of PEFT, whose weights are those of mlx-lm's layers, transposed."""
    scale = peft_scale(folder, config)
    path = folder / PEFT_WEIGHTS
    if not path.is_file():
        if list(folder.glob("*.bin")):
            raise CheckpointError(
                f"{folder} contains its adapters as pickled code, which d3mlx never runs. Save them as safetensors."
            )
        raise CheckpointError(f"{folder} is not an adapter folder: it contains no {PEFT_WEIGHTS}.")
    check_floats(path, read_header(path))
    arrays: Any = mx.load(str(path))
    layers = peft_layers(path, arrays, model)
    modules = dict(model.named_modules())
    adapted = [(name, lora_layer(path, name, modules.get(name), parts, scale)) for name, parts in layers.items()]
    model.update_modules(tree_unflatten(adapted))
    return model


def peft_scale(folder: Path, config: dict[str, Any]) -> float:
    """Return the factor of the adapters' product. Raises CheckpointError if the adapters are not plain LoRA."""
    path, kind = folder / CONFIG, config["peft_type"]
    if kind != "LORA":
        raise CheckpointError(f"{path} describes a PEFT adapter of type {kind}. d3mlx reads only LORA.")
    for name, values in PLAIN.items():
        value = config.get(name)
        if value is not None and value not in values:
            raise CheckpointError(
                f"{path} has {name} = {value!r}. d3mlx reads only plain LoRA. Merge the adapters with PEFT first."
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not all(finite(number) and number > 0 for number in (rank, alpha)):
        raise CheckpointError(f"{path} has r = {rank!r} and lora_alpha = {alpha!r}. Both must be numbers above 0.")
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))  # type: ignore[operator, arg-type]


def peft_layers(path: Path, arrays: dict[str, mx.array], model: Any) -> dict[str, dict[str, mx.array]]:
    """Return lora_a and lora_b of each layer, by this runtime's name of the layer."""
    layers: dict[str, dict[str, mx.array]] = {}
    marker = mx.array(0)
    for name, value in arrays.items():
        suffix = next((suffix for suffix in PEFT_SUFFIXES if name.endswith(suffix)), None)
        if suffix is None or not name.startswith(PEFT_PREFIX) or value.ndim != 2:
            raise CheckpointError(f"{path} contains {name}, which is not a LoRA weight of a linear layer.")
        layer = name.removeprefix(PEFT_PREFIX).removesuffix(suffix)
        for own in model.sanitize({f"{layer}.weight": marker}):
            layers.setdefault(own.removesuffix(".weight"), {})[PEFT_SUFFIXES[suffix]] = value.T
    if not layers:
        raise CheckpointError(f"{path} contains no adapters.")
    return layers


def lora_layer(path: Path, name: str, layer: Any, parts: dict[str, mx.array], scale: float) -> nn.Module:
    """Return a linear layer with its adapter. Raises CheckpointError if they do not fit each other."""
    if not isinstance(layer, nn.Linear | nn.QuantizedLinear):
        raise CheckpointError(f"{path} adapts {name}, which is not a linear layer of this model.")
    if missing := {"lora_a", "lora_b"} - set(parts):
        raise CheckpointError(f"{path} contains no {listed(missing)} for {name}.")
    adapted: Any = LoRALinear.from_base(layer, parts["lora_a"].shape[1], 0.0, scale)
    for part, value in parts.items():
        if value.shape != adapted[part].shape:
            raise CheckpointError(
                f"{path} adapts {name} with {part} of shape {list(value.shape)} where this model has "
                f"{list(adapted[part].shape)}."
            )
        adapted[part] = value
    return adapted  # type: ignore[no-any-return]
