"""Masked-diffusion training on batches with answers: hide part of the response and predict it.

Shapes: B sequences of L tokens, R computed rows, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from d3mlx.distill.losses import ROW_MULTIPLE, Terms, cross_entropy
from d3mlx.kernels.dispatch import on_device
from d3mlx.models import TrainableModel
from d3mlx.research.batches import Batch

Head = Callable[[mx.array], mx.array]
"""Maps hidden states [R, D] to logits [R, V]."""


@dataclass(frozen=True)
class Masked:
    """A batch with masks: ids [B, L] (int32), and per row its index, target token (int32) and loss weight, each [R].

    `rows` are indices into the flattened [B * L] (int32). Rows that only pad to `ROW_MULTIPLE` have weight 0. total:
    divisor of the sum of weighted losses.
    """

    ids: mx.array
    rows: mx.array
    targets: mx.array
    weights: mx.array
    total: float


def mask_ratios(count: int, lowest: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return `count` mask ratios in [lowest, 1], in random order: a uniform one from each of `count` equal strata.

    The strata reduce the variance between batches.
    """
    strata = (rng.permutation(count) + rng.random(count)) / count
    return lowest + (1 - lowest) * strata


def mask_batch(batch: Batch, mask_id: int, rng: np.random.Generator, part: int = 0, parts: int = 1) -> Masked:
    """Hide each position of positive weight with the probability that is drawn for its sequence.

    All of them are hidden from `hidden_from` on. At least one position per batch is hidden. The result has every
    `parts`-th sequence from `part` on, one or more; the mean of the losses of all parts is the loss of the batch.
    """
    maskable = batch.weights > 0
    ratios = mask_ratios(len(batch.ids), batch.lowest_ratio, rng)
    hidden = maskable & (rng.random(batch.ids.shape) < ratios[:, None])
    if batch.hidden_from is not None:
        hidden |= maskable & (np.arange(batch.ids.shape[1]) >= batch.hidden_from[:, None])
    if not hidden.any():
        hidden.flat[np.flatnonzero(maskable)[0]] = True
    ids = np.where(hidden, np.int32(mask_id), batch.ids)
    mine = slice(part, None, parts)
    masked = on_rows(ids[mine], np.flatnonzero(hidden[mine]), batch.ids[mine], batch.weights[mine])
    return replace(masked, total=float(batch.weights[hidden].sum()) / parts)


def on_rows(
    ids: NDArray[np.int32], positions: NDArray[np.int64], targets: NDArray[np.int32], weights: NDArray[np.float32]
) -> Masked:
    """Return a pass on `ids` [B, L] with a loss at flattened `positions` [N]; targets and weights are [B, L]."""
    padded = max(-(-len(positions) // ROW_MULTIPLE), 1) * ROW_MULTIPLE
    rows = np.zeros(padded, np.int32)
    rows[: len(positions)] = positions
    carried = np.zeros(padded, np.float32)
    carried[: len(positions)] = weights.flat[positions]
    total = float(carried.sum())
    return Masked(on_device(ids), on_device(rows), on_device(targets.flat[rows]), on_device(carried), total)


def mean_loss(rows: mx.array, head: Head, masked: Masked) -> mx.array:
    """Return the weighted mean cross-entropy of the hidden states [R, D] of a pass's rows."""
    losses = cross_entropy(head(rows), masked.targets)
    return (losses * masked.weights).sum() / masked.total


def masked_loss(model: TrainableModel, masked: Masked) -> mx.array:
    """Return the weighted mean cross-entropy over the masked positions."""
    return mean_loss(model.hidden(masked.ids, kept=masked.rows)[0], model.logits, masked)


@dataclass(frozen=True)
class Supervised:
    """Objective with one masked batch per step, which the processes share. batch_at: returns the batch of a step."""

    batch_at: Callable[[int], Batch]
    mask_id: int
    seed: int = 0

    def passes(self, step: int) -> list[Masked]:
        rng, world = np.random.default_rng([self.seed, step]), mx.distributed.init()
        return [mask_batch(self.batch_at(step), self.mask_id, rng, world.rank(), world.size())]

    def loss(self, model: TrainableModel, masked: Masked) -> tuple[mx.array, Terms]:
        return masked_loss(model, masked), {}

    def figures(self, step: int) -> dict[str, float]:
        return {}

    def origin(self, step: int) -> str:
        return f"batch {step}"
