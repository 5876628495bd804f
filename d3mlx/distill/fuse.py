"""Adapters folded into the weights of their model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.utils import dequantize_model, load_model, save_config, save_model

from d3mlx.checkpoint import Checkpoint, open_checkpoint, read_json
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.hub import fetch
from d3mlx.loader import one_line, with_adapters
from d3mlx.models import get_model_classes

TOKENIZER_FILES = ("*.txt", "*.jinja", "*.model", "tokenizer*.json", "vocab.json", "special_tokens_map.json")
COPIED = (*TOKENIZER_FILES, "added_tokens.json", "generation_config.json")


@dataclass(frozen=True)
class Fused:
    """What folding did to the weights of the adapted layers, as root mean squares.

    layers: how many were adapted. change: of the weights, by the adapters. error: what quantizing them again adds; 0
    for weights that were not quantized, or are no longer.
    """

    layers: int
    change: float
    error: float

    @property
    def share(self) -> float:
        """The error as a share of the change: from 1 on, most of what was learned is lost."""
        return self.error / self.change if self.change else 0.0


def full_weight(layer: Any) -> mx.array:
    """The weight of a plain or quantized linear layer, in float32."""
    if not isinstance(layer, nn.QuantizedLinear):
        return layer.weight.astype(mx.float32)
    biases = layer.get("biases")
    found = mx.dequantize(layer.weight, layer.scales, biases, layer.group_size, layer.bits, layer.mode)
    return found.astype(mx.float32)


def fold(model: nn.Module, dequantize: bool) -> Fused:
    """Replace LoRA layers by linear ones with the same output, one layer at a time."""
    adapted: list[tuple[str, Any]] = [(name, m) for name, m in model.named_modules() if hasattr(m, "fuse")]
    squares, errors, count = 0.0, 0.0, 0
    for name, module in adapted:
        delta = (module.scale * module.lora_b.T) @ module.lora_a.T
        layer = module.fuse(dequantize=dequantize)
        missed = full_weight(layer) - full_weight(module.linear) - delta
        plain = not isinstance(layer, nn.QuantizedLinear)
        squares += float(mx.square(delta).sum())
        errors += 0.0 if plain else float(mx.square(missed).sum())
        count += delta.size
        model.update_modules(tree_unflatten([(name, layer)]))
        mx.eval(layer.parameters())
    count = max(count, 1)
    return Fused(len(adapted), (squares / count) ** 0.5, (errors / count) ** 0.5)


def load_as_stored(checkpoint: Checkpoint) -> Any:
    """The model with its weights quantized as they are on disk, whatever this machine runs them in."""
    checkpoint.check_keys()
    try:
        model, _ = load_model(checkpoint.folder, lazy=True, get_model_classes=get_model_classes)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"The weights in {checkpoint.folder} cannot be loaded: {one_line(error)}") from error
    return model


def write_model(folder: Path, model: nn.Module, config: dict[str, Any], source: Path) -> None:
    """A model folder: weights, config.json, and the tokenizer's files as they are in `source`."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_model(partial, model)
        save_config(config, partial / "config.json")
        for pattern in COPIED:
            for file in source.glob(pattern):
                shutil.copy(file, partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fuse(model: str, adapter_path: Path, save_path: Path, dequantize: bool, revision: str | None = None) -> Fused:
    """Write a model folder with the adapters folded in. Raises CheckpointError, and ConfigError if the folder exists.

    dequantize: write 16-bit or 32-bit floats, whatever the model was stored in.
    """
    if save_path.exists():
        raise ConfigError(f"{save_path} exists already; give another --save-path, or remove it.")
    checkpoint = open_checkpoint(fetch(model, revision))
    if dequantize and checkpoint.quantization is None:
        raise ConfigError("The weights are not quantized, so --dequantize has no use.")
    network = load_as_stored(checkpoint)
    described = adapter_path / "adapter_config.json"
    full = described.is_file() and read_json(described).get("fine_tune_type") == "full"
    if full and checkpoint.quantization is not None:
        raise ConfigError("These adapters are weights of a model in plain floats; give that model.")
    network = with_adapters(network, adapter_path)
    done = fold(network, dequantize)
    config = dict(checkpoint.config)
    if dequantize:
        network = dequantize_model(network)
        config.pop("quantization", None)
        config.pop("quantization_config", None)
    write_model(save_path, network, config, checkpoint.folder)
    return done
