"""The weights to train, LoRA layers or all weights, with mlx-lm's layers and folder layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers

from d3mlx.distill.config import DistillConfig
from d3mlx.distill.optimizer import Arrays
from d3mlx.errors import ConfigError
from d3mlx.files import json_object, save_arrays, write_text

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"
STATE = "distill.json"
"""The effective configuration of a run."""


def check_layers(config: DistillConfig, layers: int) -> None:
    """Raise ConfigError if num_layers does not fit a model with this number of layers."""
    count = config.num_layers
    if count == 0 or count < -1 or count > layers:
        raise ConfigError(f"num-layers must be -1 (all layers) or between 1 and {layers}, not {count}.")


def make_trainable(model: Any, config: DistillConfig, quantized: bool) -> None:
    """Freeze all weights except LoRA layers, or except the last layers. Raises ConfigError.

    num_layers of `config` counts from the last layer. With -1 all layers are trained, and with full fine-tuning also
    embedding, norm and head.
    """
    count, layers = config.num_layers, model.layers
    check_layers(config, len(layers))
    model.freeze()
    mx.random.seed(config.seed)
    if config.fine_tune_type == "lora":
        linear_to_lora_layers(model, len(layers) if count == -1 else count, config.lora_parameters)
    elif quantized:
        raise ConfigError("Cannot train quantized weights. Use LoRA, or a checkpoint in 16-bit floats.")
    elif count == -1:
        model.unfreeze()
    else:
        for layer in layers[-count:]:
            layer.unfreeze()
    model.train()


@contextmanager
def checkpointed(model: Any, wanted: bool) -> Iterator[None]:
    """Recompute each layer in the backward pass during the block, if `wanted`.

    mlx-lm's function replaces `__call__` of the layer's class, for every model in the process. It is restored after the
    block.
    """
    kind = type(model.layers[0])
    plain = kind.__call__
    if wanted:
        grad_checkpoint(model.layers[0])
    try:
        yield
    finally:
        kind.__call__ = plain


def read_state(folder: Path) -> dict[str, Any]:
    """Return the effective configuration of the run in a folder. Raises ConfigError."""
    path = folder / STATE
    state = json_object(path)
    if state is None:
        raise ConfigError(f"Cannot resume the run: {path} is missing or damaged. Choose another --adapter-path.")
    return state


class AdapterFolder:
    """An adapter folder: mlx-lm's two files, numbered checkpoints, and the configuration of the run.

    content: fingerprints of model and data. layers: their number in the model. dtype: of full weights in files.
    """

    def __init__(self, config: DistillConfig, content: dict[str, str], layers: int, dtype: mx.Dtype):
        self.config, self.content, self.layers, self.dtype = config, content, layers, dtype
        self.path = Path(config.adapter_path)

    def begin(self) -> None:
        """Write the configuration for `load_adapters` of mlx-lm, and the effective configuration."""
        count = self.layers if self.config.num_layers == -1 else self.config.num_layers
        lora = self.config.lora_parameters if self.config.fine_tune_type == "lora" else None
        described = {
            "fine_tune_type": self.config.fine_tune_type,
            "num_layers": count,
            "lora_parameters": lora,
            "model": self.config.model,
        }
        settings = json.dumps(asdict(self.config) | self.content, indent=2, sort_keys=True)
        write_text(self.path / STATE, settings + "\n")
        write_text(self.path / CONFIG, json.dumps(described, indent=2, sort_keys=True) + "\n")

    def save(self, weights: Arrays, step: int) -> None:
        """Write the weights after `step` to two files: one with its number, and the newest."""
        if self.config.fine_tune_type == "full":
            weights = {name: value.astype(self.dtype) for name, value in weights.items()}
        for name in (f"{step:07d}_{WEIGHTS}", WEIGHTS):
            save_arrays(self.path / name, weights, {"format": "mlx"})
