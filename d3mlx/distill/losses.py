"""The losses of distillation and of plain masked-diffusion training.

The head is computed in chunks, and only for rows with a loss. The backward pass computes the loss from the logits a
second time instead of storing intermediate results: the logits of an 8B model take 0.5 MB per row in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from d3mlx.distill.masking import Noisy
from d3mlx.kernels.dispatch import on_cpu, on_device
from d3mlx.models import TrainableModel, cpu

ROW_MULTIPLE = 128
"""The number of masked rows is padded to a multiple of this, so that there are few shapes."""

Terms = dict[str, mx.array]
"""Named parts of a loss, for the log."""


@dataclass(frozen=True)
class LossConfig:
    """Settings of the d3LLM loss of one forward: share x (CE + entropy_weight x entropy of correct predictions).

    temperature: divides the logits before the entropy. complement_entropy: add the entropy also for the complement, not
    only its CE. share: a constant factor, 1/4 as published. It is not gradient accumulation, which is also 4 there.
    """

    entropy_weight: float = 2.0
    temperature: float = 0.5
    complement_entropy: bool = False
    share: float = 0.25


@dataclass(frozen=True)
class LossRows:
    """One forward and its rows with a loss. Padding rows have weight 0.

    ids: int32 [B, L]. rows: int32 [N], indices into the flattened hidden rows [B * L]. targets: int32 [N]. weights:
    float32 [N]. total: divisor of the sum of losses over all processes. name: suffix of its terms. scale: factor of
    this forward.
    """

    ids: mx.array
    rows: mx.array
    targets: mx.array
    weights: mx.array
    total: float
    name: str
    scale: float


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the negative log-likelihoods [N] of `targets` [N] under `logits` [N, V]."""
    if on_cpu(logits):
        return cpu.cross_entropy(logits, targets)
    target_logits = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.logsumexp(logits, axis=-1) - target_logits


Labeled = tuple[Noisy, NDArray[np.int32]]
"""A noisy sequence and its original ids, int32 [L]."""


def loss_rows(
    batch: list[Labeled], shift: int, weights: list[float], total: float, name: str, scale: float
) -> LossRows:
    """Return the rows with a loss of noisy sequences. weights: one per sequence.

    A model with shift 1 predicts position p from the hidden row of p - 1.
    """
    ids = np.stack([noisy.ids for noisy, _ in batch])
    lost = np.stack([noisy.lost for noisy, _ in batch])
    labels = np.stack([label for _, label in batch])
    where = np.flatnonzero(lost)
    size = max(-(-len(where) // ROW_MULTIPLE), 1) * ROW_MULTIPLE
    rows, targets, row_weights = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.float32)
    rows[: len(where)] = where - shift
    targets[: len(where)] = labels.flat[where]
    row_weights[: len(where)] = np.repeat(np.array(weights, np.float32), lost.sum(axis=1))
    return LossRows(on_device(ids), on_device(rows), on_device(targets), on_device(row_weights), total, name, scale)


def certainty(logits: mx.array, targets: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
    """Return the entropy of softmax(logits / temperature) in nats, and 1 where the likeliest token is the target.

    logits: [N, V]. targets: [N]. Both results are float32 [N].
    """
    p = mx.softmax(logits / temperature, axis=-1)
    entropy = -(p * mx.log(p + 1e-12)).sum(axis=-1)
    return entropy, (mx.argmax(logits, axis=-1) == targets).astype(mx.float32)


def row_sums(
    model: TrainableModel, forward: LossRows, temperature: float | None
) -> tuple[mx.array, mx.array, mx.array]:
    """Return weighted sums over this process's rows: cross-entropy, entropy of correct predictions, their weight."""

    def sums(logits: mx.array, targets: mx.array, weights: mx.array) -> list[mx.array]:
        # Gradients of a checkpointed function are computed for all its arguments.
        logits, targets, weights = logits.astype(mx.float32), mx.stop_gradient(targets), mx.stop_gradient(weights)
        nll = (cross_entropy(logits, targets) * weights).sum()
        if temperature is None:
            return [nll, mx.zeros(()), mx.zeros(())]
        entropy, correct = certainty(logits, targets, temperature)
        correct = mx.stop_gradient(correct * weights)
        return [nll, (entropy * correct).sum(), correct.sum()]

    recomputed: Any = mx.checkpoint(sums)
    rows = model.hidden(forward.ids, kept=forward.rows)[0]
    totals = [mx.zeros(())] * 3
    for i in range(0, len(forward.rows), ROW_MULTIPLE):
        part = slice(i, i + ROW_MULTIPLE)
        sums_of_part = recomputed(model.logits(rows[part]), forward.targets[part], forward.weights[part])
        totals = [a + b for a, b in zip(totals, sums_of_part, strict=True)]
    return totals[0], totals[1], totals[2]


def total_over_processes(value: mx.array) -> mx.array:
    """Return the sum of a count over all processes, without a gradient."""
    return mx.distributed.all_sum(mx.stop_gradient(value)) if mx.distributed.init().size() > 1 else value


def d3llm_loss(
    model: TrainableModel, forward: LossRows, config: LossConfig, entropy_weight: float
) -> tuple[mx.array, Terms]:
    """Return the loss (CE + entropy_weight x entropy) x share of one forward, and its terms.

    CE and entropy are means over the rows of all processes.
    """
    nll, entropy, correct = row_sums(model, forward, config.temperature)
    size = mx.distributed.init().size()
    ce = nll * (size / max(forward.total, 1.0))
    certain = entropy * size / mx.maximum(total_over_processes(correct), 1.0)
    loss = (ce + entropy_weight * certain) * (config.share * forward.scale)
    return loss, {f"ce{forward.name}": ce * forward.scale, f"entropy{forward.name}": certain * forward.scale}


def plain_loss(model: TrainableModel, forward: LossRows) -> tuple[mx.array, Terms]:
    """Return the weighted sum of cross-entropies / total: LLaDA's bound on the likelihood (LLaDA, equation 5)."""
    nll, _, _ = row_sums(model, forward, None)
    loss = nll * (mx.distributed.init().size() / forward.total)
    return loss * forward.scale, {"ce": loss * forward.scale}
