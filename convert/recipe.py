"""The plan of a conversion: precision and quantization of each weight, checked before any weight is read."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map_with_path
from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.utils import dequantize_model, quantize_model

from d3mlx.checkpoints.checkpoint import Checkpoint
from d3mlx.checkpoints.loader import lazy_model
from d3mlx.errors import ConfigError, listed
from d3mlx.quantization import MODES, LayerQuantization

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


@dataclass(frozen=True)
class Quantization:
    """Settings of a quantization, with the mode's default for None. Raises ConfigError.

    bits: per weight. group_size: the number of weights of a row that share a scale. recipe: the name of one of mlx-lm's
    mixed recipes, which give more bits to sensitive layers.
    """

    mode: str = "affine"
    bits: int | None = None
    group_size: int | None = None
    recipe: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"Unknown quantization mode {self.mode!r}. Choose {listed(MODES)}.")
        groups, bits = MODES[self.mode]
        if self.bits is not None and self.bits not in bits:
            raise ConfigError(f"Mode {self.mode} has {listed(bits)} bits per weight, not {self.bits}.")
        if self.group_size is not None and self.group_size not in groups:
            raise ConfigError(f"Mode {self.mode} has groups of {listed(groups)} weights, not {self.group_size}.")
        if self.recipe is None:
            return
        if self.recipe not in QUANT_RECIPES:
            raise ConfigError(f"Unknown recipe {self.recipe!r}. Choose {listed(QUANT_RECIPES)}.")
        if self.mode != "affine":
            raise ConfigError(f"Recipe {self.recipe} works only with mode affine, not {self.mode}.")
        if self.bits is not None:
            raise ConfigError(f"Recipe {self.recipe} sets the bits itself. Leave out the bits.")

    @property
    def group(self) -> int:
        """Return the number of weights that share a scale."""
        return self.group_size or MODES[self.mode].groups[0]

    @property
    def lowest_bits(self) -> int:
        """Return the bits of most layers. The name of a recipe contains its lower and its higher bits."""
        return int(self.recipe.split("_")[1]) if self.recipe else self.bits or MODES[self.mode].bits[0]


@dataclass(frozen=True)
class Recipe:
    """Precision of a converted model: quantize, dequantize, or neither. Raises ConfigError.

    dtype: of all weights that are not quantized: float16, bfloat16 or float32. With None it is the `torch_dtype` of
    config.json, as in mlx-lm, or else the stored dtype.
    """

    quantization: Quantization | None = None
    dequantize: bool = False
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"Invalid dtype {self.dtype!r} for weights. Choose {listed(DTYPES)}.")
        if self.quantization and self.dequantize:
            raise ConfigError("Cannot quantize and dequantize at the same time. Choose one of them.")


@dataclass(frozen=True)
class Plan:
    """A conversion before any weight is read.

    skeleton: the converted model with lazy arrays; the output has their names, shapes and dtypes. config: the new
    config.json. dequantize, quantize: settings of the layers to dequantize or quantize, by path. dtype: of the weights
    that are not quantized; None keeps the stored dtype.
    """

    skeleton: Any
    config: dict[str, Any]
    dequantize: dict[str, LayerQuantization]
    quantize: dict[str, LayerQuantization]
    dtype: Any


def make_plan(checkpoint: Checkpoint, recipe: Recipe) -> Plan:
    """Return the plan of a conversion. Raises CheckpointError, ConfigError."""
    if recipe.dequantize and not checkpoint.quantization:
        raise ConfigError(f"Cannot dequantize {checkpoint.folder}: it is not quantized.")
    if recipe.quantization and checkpoint.quantization:
        raise ConfigError(f"{checkpoint.folder} is already quantized. Convert the original, or dequantize it first.")
    # A field with the value null means the same as a missing field, so the output has none.
    left_out = () if checkpoint.quantization and not recipe.dequantize else ("quantization", "quantization_config")
    config = {name: value for name, value in checkpoint.own_config.items() if name not in left_out}
    dtype = chosen_dtype(config, recipe)
    skeleton = lazy_model(checkpoint)
    cast(skeleton, dtype)
    to_dequantize: dict[str, LayerQuantization] = {}
    to_quantize: dict[str, LayerQuantization] = {}
    if recipe.dequantize:
        to_dequantize = quantized_layers(skeleton)
        skeleton = dequantize_model(skeleton)
        cast(skeleton, dtype)
    if recipe.quantization:
        check_widths(skeleton, recipe.quantization)
        skeleton, config = quantize(skeleton, config, recipe.quantization)
        to_quantize = quantized_layers(skeleton)
    return Plan(skeleton, config, to_dequantize, to_quantize, dtype)


def casts(model: Any, name: str) -> bool:
    """Return whether a conversion may change the dtype of a weight, as mlx-lm's `cast_predicate` says."""
    return bool(getattr(model, "cast_predicate", lambda name: True)(name))


def cast(model: Any, dtype: Any) -> None:
    """Set the dtype of all floats that a conversion may change; None keeps it."""
    if dtype is None:
        return

    def changed(name: str, value: mx.array) -> mx.array:
        return value.astype(dtype) if mx.issubdtype(value.dtype, mx.floating) and casts(model, name) else value

    model.update(tree_map_with_path(changed, model.parameters()))


def quantized_layers(model: Any) -> dict[str, LayerQuantization]:
    """Return the settings of each quantized layer, by path."""
    return {path: LayerQuantization.of(layer) for path, layer in model.named_modules() if "scales" in layer}


def chosen_dtype(config: dict[str, Any], recipe: Recipe) -> Any:
    """Return the dtype of the weights that are not quantized and write it to `config`; None keeps the stored dtype."""
    names = [name for name in ("torch_dtype", "dtype") if name in config]
    wanted = recipe.dtype or next((config[name] for name in names if str(config[name]) in DTYPES), None)
    if wanted is None:
        return None
    for name in names or ["torch_dtype"]:
        config[name] = wanted
    return DTYPES[wanted]


def check_widths(model: Any, quantization: Quantization) -> None:
    """Raise ConfigError if a layer's width is not a multiple of the group size. mlx-lm skips such layers silently.

    Every layer that mlx-lm can quantize is checked, embedding and head included.
    """
    layers: Any = [(path, layer) for path, layer in model.named_modules() if hasattr(layer, "to_quantized")]
    widths = {path: layer.weight.shape[-1] for path, layer in sorted(layers)}
    unfit = [path for path, width in widths.items() if width % quantization.group]
    if unfit:
        groups = MODES[quantization.mode].groups
        fitting = [group for group in groups if not any(width % group for width in widths.values())]
        advice = f"use groups of {listed(fitting)}" if fitting else "no group of this mode fits this model"
        others = f" (and {len(unfit) - 1} more layers)" if len(unfit) > 1 else ""
        raise ConfigError(
            f"{unfit[0]}{others} has rows of {widths[unfit[0]]} weights, which is not a multiple of the group size "
            f"{quantization.group}: {advice}."
        )


def quantize(model: Any, config: dict[str, Any], quantization: Quantization) -> tuple[nn.Module, dict[str, Any]]:
    """Quantize with mlx-lm and return model and config. The arrays stay lazy, and mlx-lm's output is discarded."""
    predicate = None
    if quantization.recipe:
        predicate = mixed_quant_predicate_builder(quantization.recipe, model, quantization.group)
    with contextlib.redirect_stdout(io.StringIO()):
        return quantize_model(
            model,
            config,
            quantization.group,
            quantization.lowest_bits,
            mode=quantization.mode,
            quant_predicate=predicate,
        )
