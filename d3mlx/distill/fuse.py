"""Fusion of adapters with the weights of their model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.utils import dequantize_model, save_model

from d3mlx.checkpoints.adapters import with_adapters
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.config import read_json
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import lazy_model
from d3mlx.checkpoints.tokenizer import load_tokenizer
from d3mlx.convert.card import Origin
from d3mlx.convert.converter import write_small_files
from d3mlx.convert.target import new_folder, refuse_existing
from d3mlx.errors import ConfigError
from d3mlx.files import writing


@dataclass(frozen=True)
class Fused:
    """Result of a fusion: root mean squares over the weights of the adapted layers.

    layers: number of adapted layers. change: of the weights by the adapters. error: of the new quantization; 0 if the
    result is not quantized.
    """

    layers: int
    change: float
    error: float

    @property
    def share(self) -> float:
        """Return error / change. From 1 on, quantization removes most of the training."""
        return self.error / self.change if self.change else 0.0


def full_weight(layer: Any) -> mx.array:
    """Return the weight of a plain or quantized linear layer, float32 [out, in]."""
    if not isinstance(layer, nn.QuantizedLinear):
        return layer.weight.astype(mx.float32)
    biases = layer.get("biases")
    weight = mx.dequantize(layer.weight, layer.scales, biases, layer.group_size, layer.bits, layer.mode)
    return weight.astype(mx.float32)


def fold(model: nn.Module, dequantize: bool) -> Fused:
    """Replace LoRA layers by linear layers with the same output, one at a time. Return the change and the error."""
    adapted: list[tuple[str, Any]] = [(name, m) for name, m in model.named_modules() if hasattr(m, "fuse")]
    squares, errors, count = 0.0, 0.0, 0
    for name, module in adapted:
        delta = (module.scale * module.lora_b.T) @ module.lora_a.T
        layer = module.fuse(dequantize=dequantize)
        error = full_weight(layer) - full_weight(module.linear) - delta
        plain = not isinstance(layer, nn.QuantizedLinear)
        squares += float(mx.square(delta).sum())
        errors += 0.0 if plain else float(mx.square(error).sum())
        count += delta.size
        model.update_modules(tree_unflatten([(name, layer)]))
        mx.eval(layer.parameters())
    count = max(count, 1)
    return Fused(len(adapted), (squares / count) ** 0.5, (errors / count) ** 0.5)


def fuse(model: str, adapter_path: Path, save_path: Path, dequantize: bool, revision: str | None = None) -> Fused:
    """Write a model folder with fused adapters. Raises CheckpointError, and ConfigError if the folder exists.

    dequantize: write floats of 16 or 32 bits if the model is quantized.
    """
    refuse_existing(save_path)
    checkpoint = open_checkpoint(fetch(model, revision))
    if dequantize and checkpoint.quantization is None:
        raise ConfigError("Cannot dequantize: the weights are not quantized. Leave out --dequantize.")
    network = lazy_model(checkpoint)
    described = adapter_path / "adapter_config.json"
    full = described.is_file() and read_json(described).get("fine_tune_type") == "full"
    if full and checkpoint.quantization is not None:
        raise ConfigError("These adapters are the weights of a model without quantization. Choose that model.")
    network = with_adapters(network, adapter_path)
    done = fold(network, dequantize)
    config = checkpoint.own_config
    if dequantize:
        network = dequantize_model(network)
        config.pop("quantization", None)
        config.pop("quantization_config", None)
    words = f"with fused adapters of {done.layers} layers"
    with new_folder(save_path) as folder:
        with writing(save_path):
            save_model(folder, network)
        write_small_files(folder, checkpoint, load_tokenizer(checkpoint), config, Origin(save_path.name, model, words))
    return done
