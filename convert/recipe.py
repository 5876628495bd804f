"""What becomes of each weight: the precision that a conversion asks for, checked before anything is read."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.utils import dequantize_model, quantize_model

from d3mlx.checkpoints.checkpoint import Checkpoint
from d3mlx.checkpoints.loader import lazy_model
from d3mlx.errors import ConfigError, listed
from d3mlx.quantization import MODES, LayerQuantization

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


@dataclass(frozen=True)
class Quantization:
    """Groups of `group_size` weights of a row share a scale; each weight takes `bits`. None: the mode's default.

    recipe: one of mlx-lm's mixed recipes, which gives the layers that matter most more bits. Raises ConfigError.
    """

    mode: str = "affine"
    bits: int | None = None
    group_size: int | None = None
    recipe: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"There is no quantization mode {self.mode!r}; choose {listed(MODES)}.")
        groups, bits = MODES[self.mode]
        if self.bits is not None and self.bits not in bits:
            raise ConfigError(f"The mode {self.mode} stores {listed(bits)} bits a weight, not {self.bits}.")
        if self.group_size is not None and self.group_size not in groups:
            raise ConfigError(f"The mode {self.mode} has groups of {listed(groups)} weights, not {self.group_size}.")
        if self.recipe is None:
            return
        if self.recipe not in QUANT_RECIPES:
            raise ConfigError(f"There is no recipe {self.recipe!r}; choose {listed(QUANT_RECIPES)}.")
        if self.mode != "affine":
            raise ConfigError(f"The recipe {self.recipe} mixes bits of the affine mode; it cannot be {self.mode}.")
        if self.bits is not None:
            raise ConfigError(f"The recipe {self.recipe} sets the bits itself; leave out the bits.")

    @property
    def group(self) -> int:
        return self.group_size or MODES[self.mode].groups[0]

    @property
    def lowest_bits(self) -> int:
        """Bits of a layer that nothing else is said of; a recipe is named after its lower and higher bits."""
        return int(self.recipe.split("_")[1]) if self.recipe else self.bits or MODES[self.mode].bits[0]


@dataclass(frozen=True)
class Recipe:
    """A conversion: quantize, or dequantize, or neither; and the dtype of whatever stays in floats.

    dtype: float16, bfloat16 or float32. None: what config.json says (`torch_dtype`), as in mlx-lm, else as stored.
    Raises ConfigError.
    """

    quantization: Quantization | None = None
    dequantize: bool = False
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"There is no dtype {self.dtype!r} for weights; choose {listed(DTYPES)}.")
        if self.quantization and self.dequantize:
            raise ConfigError("Choose either to quantize or to dequantize, not both.")


@dataclass(frozen=True)
class Plan:
    """A conversion before any weight is read.

    skeleton: the converted model as mlx-lm would make it, none of its arrays computed; their names, shapes and dtypes
    are what will be written. config: the new config.json. dequantize, quantize: the layers
    that are, by path. dtype: of the floats, None for as they come.
    """

    skeleton: Any
    config: dict[str, Any]
    dequantize: dict[str, LayerQuantization]
    quantize: dict[str, LayerQuantization]
    dtype: Any


def make_plan(checkpoint: Checkpoint, recipe: Recipe) -> Plan:
    """Raises CheckpointError, ConfigError."""
    if recipe.dequantize and not checkpoint.quantization:
        raise ConfigError(f"{checkpoint.folder} is not quantized; there is nothing to dequantize.")
    if recipe.quantization and checkpoint.quantization:
        raise ConfigError(f"{checkpoint.folder} is quantized already; convert the original, or dequantize it first.")
    # A null there means what its absence means.
    left_out = () if checkpoint.quantization and not recipe.dequantize else ("quantization", "quantization_config")
    config = {name: value for name, value in checkpoint.own_config.items() if name not in left_out}
    dtype = chosen_dtype(config, recipe)
    skeleton = lazy_model(checkpoint)
    if dtype is not None:
        skeleton.set_dtype(dtype)
    to_dequantize: dict[str, LayerQuantization] = {}
    to_quantize: dict[str, LayerQuantization] = {}
    if recipe.dequantize:
        to_dequantize = quantized_layers(skeleton)
        skeleton = dequantize_model(skeleton)
        if dtype is not None:
            skeleton.set_dtype(dtype)
    if recipe.quantization:
        check_widths(skeleton, recipe.quantization)
        skeleton, config = quantize(skeleton, config, recipe.quantization)
        to_quantize = quantized_layers(skeleton)
    return Plan(skeleton, config, to_dequantize, to_quantize, dtype)


def quantized_layers(model: Any) -> dict[str, LayerQuantization]:
    return {path: LayerQuantization.of(layer) for path, layer in model.named_modules() if "scales" in layer}


def chosen_dtype(config: dict[str, Any], recipe: Recipe) -> Any:
    """The dtype of the floats, which config.json then names; None for as they come."""
    names = [name for name in ("torch_dtype", "dtype") if name in config]
    wanted = recipe.dtype or next((config[name] for name in names if str(config[name]) in DTYPES), None)
    if wanted is None:
        return None
    for name in names or ["torch_dtype"]:
        config[name] = wanted
    return DTYPES[wanted]


def check_widths(model: Any, quantization: Quantization) -> None:
    """Raise ConfigError if a layer's rows are no whole number of groups: mlx-lm would leave it as it is without a word.

    Embedding and head are as wide as the projections that read what they carry, so none of them is ever left alone.
    """
    layers: Any = [(path, layer) for path, layer in model.named_modules() if hasattr(layer, "to_quantized")]
    widths = {path: layer.weight.shape[-1] for path, layer in sorted(layers)}
    left = [path for path, width in widths.items() if width % quantization.group]
    if left:
        groups = MODES[quantization.mode].groups
        fitting = [group for group in groups if not any(width % group for width in widths.values())]
        advice = f"use groups of {listed(fitting)}" if fitting else "no group of this mode fits this model"
        others = f" (and {len(left) - 1} more layers)" if len(left) > 1 else ""
        raise ConfigError(
            f"{left[0]}{others} has rows of {widths[left[0]]} weights, no multiple of the group of "
            f"{quantization.group}; {advice}."
        )


def quantize(model: Any, config: dict[str, Any], quantization: Quantization) -> tuple[nn.Module, dict[str, Any]]:
    """mlx-lm's quantization, which decides on layers and config; nothing is computed, and nothing printed."""
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
