"""The losses of distillation and of plain masked-diffusion training, on the rows that carry them.

The head is computed for those rows only, a chunk at a time, and what lies behind the logits is computed again in the
backward pass: an 8B model's logits are half a megabyte a row in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from d3mlx.distill.masking import Noisy
from d3mlx.kernels.dispatch import on_device
from d3mlx.models import DiffusionModel

ROW_MULTIPLE = 128
"""The number of masked rows is padded up to a multiple of this, so that few shapes exist."""

Terms = dict[str, mx.array]
"""Named parts of a loss, for the log."""


@dataclass(frozen=True)
class LossConfig:
    """The d3LLM loss of one forward: CE + entropy_weight x entropy of sharpened predictions that are right.

    temperature sharpens those predictions. complement_entropy: the complement's entropy counts too, not only its CE.
    share: a constant factor, 1/4 as published (not gradient accumulation, which happens to be 4 too).
    """

    entropy_weight: float = 2.0
    temperature: float = 0.5
    complement_entropy: bool = False
    share: float = 0.25


@dataclass(frozen=True)
class LossRows:
    """One forward and the rows of it that carry the loss; rows that only pad have weight 0.

    ids [B, L]; rows [N] index the flattened hidden rows [B * L]; targets [N]; weights [N]; total: what the sum of
    losses is divided by, over all processes. name: what its terms end in. scale: how much this forward weighs.
    """

    ids: mx.array
    rows: mx.array
    targets: mx.array
    weights: mx.array
    total: float
    name: str
    scale: float


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """logits [N, V], targets [N] -> negative log-likelihoods [N]."""
    target_logits = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.logsumexp(logits, axis=-1) - target_logits


Labelled = tuple[Noisy, NDArray[np.int32]]
"""A noisy sequence and its true ids."""


def loss_rows(
    batch: list[Labelled], shift: int, weights: list[float], total: float, name: str, scale: float
) -> LossRows:
    """The rows of noisy sequences; `weights` are per sequence.

    A model of shift 1 predicts position p from the hidden row of p - 1.
    """
    ids = np.stack([noisy.ids for noisy, _ in batch])
    lost = np.stack([noisy.lost for noisy, _ in batch])
    labels = np.stack([label for _, label in batch])
    where = np.flatnonzero(lost)
    size = max(-(-len(where) // ROW_MULTIPLE), 1) * ROW_MULTIPLE
    rows, targets, carried = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.float32)
    rows[: len(where)] = where - shift
    targets[: len(where)] = labels.flat[where]
    carried[: len(where)] = np.repeat(np.array(weights, np.float32), lost.sum(axis=1))
    return LossRows(on_device(ids), on_device(rows), on_device(targets), on_device(carried), total, name, scale)


def certainty(logits: mx.array, targets: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
    """Entropy in nats of softmax(logits / temperature), and whether the likeliest token is the target. [N] each."""
    p = mx.softmax(logits / temperature, axis=-1)
    entropy = -(p * mx.log(p + 1e-12)).sum(axis=-1)
    return entropy, (mx.argmax(logits, axis=-1) == targets).astype(mx.float32)


def row_sums(
    model: DiffusionModel, forward: LossRows, temperature: float | None
) -> tuple[mx.array, mx.array, mx.array]:
    """Weighted sums over this process's rows: cross-entropy, entropy of right predictions, their weight."""

    def sums(logits: mx.array, targets: mx.array, weights: mx.array) -> list[mx.array]:
        # A checkpointed function is differentiated by all its arguments.
        logits, targets, weights = logits.astype(mx.float32), mx.stop_gradient(targets), mx.stop_gradient(weights)
        nll = (cross_entropy(logits, targets) * weights).sum()
        if temperature is None:
            return [nll, mx.zeros(()), mx.zeros(())]
        entropy, right = certainty(logits, targets, temperature)
        right = mx.stop_gradient(right * weights)
        return [nll, (entropy * right).sum(), right.sum()]

    again: Any = mx.checkpoint(sums)
    hidden = model.hidden(forward.ids)
    rows = hidden.reshape(-1, hidden.shape[-1])[forward.rows]
    totals = [mx.zeros(())] * 3
    for i in range(0, len(forward.rows), ROW_MULTIPLE):
        part = slice(i, i + ROW_MULTIPLE)
        sums_of_part = again(model.logits(rows[part]), forward.targets[part], forward.weights[part])
        totals = [a + b for a, b in zip(totals, sums_of_part, strict=True)]
    return totals[0], totals[1], totals[2]


def total_over_processes(value: mx.array) -> mx.array:
    """The sum of a count over all processes; no gradient flows through it."""
    return mx.distributed.all_sum(mx.stop_gradient(value)) if mx.distributed.init().size() > 1 else value


def d3llm_loss(
    model: DiffusionModel, forward: LossRows, config: LossConfig, entropy_weight: float
) -> tuple[mx.array, Terms]:
    """(CE + entropy_weight x entropy) x share of one forward, means being over the rows of all processes."""
    nll, entropy, right = row_sums(model, forward, config.temperature)
    size = mx.distributed.init().size()
    ce = nll * (size / max(forward.total, 1.0))
    certain = entropy * size / mx.maximum(total_over_processes(right), 1.0)
    loss = (ce + entropy_weight * certain) * (config.share * forward.scale)
    return loss, {f"ce{forward.name}": ce * forward.scale, f"entropy{forward.name}": certain * forward.scale}


def plain_loss(model: DiffusionModel, forward: LossRows) -> tuple[mx.array, Terms]:
    """The weighted sum of cross-entropies over `total`: LLaDA's bound on the likelihood (LLaDA, equation 5)."""
    nll, _, _ = row_sums(model, forward, None)
    loss = nll * (mx.distributed.init().size() / forward.total)
    return loss * forward.scale, {"ce": loss * forward.scale}
