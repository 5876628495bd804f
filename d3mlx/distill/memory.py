"""Estimate of the memory of a training run, from shapes, before a weight is loaded.

The values stored for the backward pass are counted per layer and token: the inputs of all products, the attention
probabilities, and the parts of SwiGLU. With gradient checkpointing each layer stores only its input, and one layer at a
time stores the other values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from d3mlx.checkpoints.checkpoint import SMALL, Checkpoint
from d3mlx.checkpoints.headers import DTYPE_BYTES
from d3mlx.checkpoints.loader import memory_limit
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.losses import ROW_MULTIPLE
from d3mlx.errors import MemoryLimitError
from d3mlx.models.transformer import Shape

MASTER = 4
"""Bytes per trainable parameter. Weights, moments and gradients are float32."""


@dataclass(frozen=True)
class Estimate:
    """Estimated memory in bytes.

    weights: of the model. training: float32 weights, two moments, two gradients and a cast copy of the trainable
    parameters. activations: stored for the backward pass of one forward, and used in it. head: logits and their
    gradients.
    """

    weights: int
    training: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        """Return the sum of all parts."""
        return self.weights + self.training + self.activations + self.head


def lora_parameters(shape: Shape, config: DistillConfig) -> int:
    """Return the number of LoRA parameters per layer."""
    queries, kv = shape.hidden + shape.query_width, shape.hidden + shape.kv_width
    sizes = {"q": queries, "k": kv, "v": kv, "o": queries}
    sizes |= dict.fromkeys(("gate", "up", "down"), shape.hidden + shape.ff)
    return sum(config.rank * sizes[target.removesuffix("_proj")] for target in config.targets)


def layer_values(shape: Shape, length: int, config: DistillConfig) -> int:
    """Return the number of values stored for the backward pass, per layer and token."""
    attention = shape.hidden + 2 * shape.query_width + 2 * shape.kv_width + 2 * shape.heads * length
    feed_forward = 2 * shape.hidden + 5 * shape.ff
    lora = len(config.targets) * config.rank if config.fine_tune_type == "lora" else 0
    return attention + feed_forward + lora


def estimate(checkpoint: Checkpoint, config: DistillConfig, processes: int = 1) -> Estimate:
    """Return the memory for one process's share of a micro-batch of maximum length."""
    shape: Shape = checkpoint.args.shape()
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    in_float32 = on_cpu and checkpoint.parameters < SMALL
    width = 4 if in_float32 else DTYPE_BYTES[checkpoint.renamed()["model.norm.weight"].dtype]
    layers = shape.layers if config.num_layers == -1 else config.num_layers
    if config.fine_tune_type == "lora":
        trained = layers * lora_parameters(shape, config)
    else:
        trained = checkpoint.parameters * layers // shape.layers
    sequences = math.ceil(config.batch_size / processes)
    tokens = sequences * config.max_length
    layer = layer_values(shape, config.max_length, config) * tokens * width
    activations = layer * (layers + 1)
    if config.grad_checkpoint:
        # Memory contains all values of the recomputed layer and their gradients at the same time. Measured: 2.3 times
        # the values; the rest is a margin.
        activations = shape.hidden * tokens * width * layers + int(2.5 * layer)
    rows = sequences * max(config.block_sizes) if config.objective == "d3llm" and config.blockwise else tokens
    logits = checkpoint.args.logit_width
    head = rows * logits * width + 6 * min(rows, ROW_MULTIPLE) * logits * MASTER
    return Estimate(
        weights=checkpoint.bytes_to_load(in_float32),
        training=trained * (5 * MASTER + (0 if width == MASTER else width)),
        activations=activations,
        head=head,
    )


def refuse_if_over_limit(needed: Estimate, force: bool) -> None:
    """Raise MemoryLimitError if the estimate exceeds the memory of this machine, unless `force`."""
    limit = memory_limit()
    if needed.total > limit and not force:
        raise MemoryLimitError(
            f"Training needs about {needed.total / 1e9:.1f} GB, but this machine can use {limit / 1e9:.1f} GB. Use "
            "--grad-checkpoint, a smaller --batch-size or --max-length, quantized weights, or --force to try anyway."
        )
