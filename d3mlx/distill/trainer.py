"""The training loop: batches from a curriculum, an objective, an optimizer, checkpoints, a log.

Step-based throughout: what step k does depends on the seed and k alone, so a killed and resumed run ends with the
weights of an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from d3mlx.data.batches import Batch
from d3mlx.distill.fast_cpu import fast_cpu
from d3mlx.distill.objective import CrossEntropy, Masked, mask_batch, masked_loss
from d3mlx.distill.optimizer import Arrays, Optimizer, OptimizerConfig, State

BatchAt = Callable[[int], Batch]
"""The batch of a step."""

Monitor = Callable[[nn.Module], dict[str, float]]
"""Figures about a model for the log."""

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    steps: int
    seed: int = 0
    mask_id: int = 0
    log_every: int = 50
    save_every: int = 500
    monitor_every: int = 1000
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def save_checkpoint(folder: Path, state: State, step: int) -> None:
    """Write a temporary sibling and rename it, so that a checkpoint is whole or absent."""
    temporary = folder / f".partial-{CHECKPOINT}"
    mx.save_safetensors(str(temporary), state.flat(), metadata={"step": str(step)})
    temporary.replace(folder / CHECKPOINT)


def load_checkpoint(folder: Path) -> tuple[State, int] | None:
    """The state and the number of steps done, None where no checkpoint is."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    found: Any = mx.load(str(path), return_metadata=True)
    arrays, metadata = found
    arrays = {name: value.astype(mx.float32) for name, value in arrays.items()}
    return State.of_flat(arrays), int(metadata["step"])


class Trainer:
    """Trains every parameter of `model` and leaves the averaged weights in it."""

    def __init__(self, model: nn.Module, batch_at: BatchAt, config: TrainConfig, folder: Path):
        self.model, self.batch_at, self.config, self.folder = model, batch_at, config, folder
        self.optimizer = Optimizer(config.optimizer, config.steps)
        folder.mkdir(parents=True, exist_ok=True)

    def masked(self, step: int) -> Masked:
        rng = np.random.default_rng([self.config.seed, step])
        return mask_batch(self.batch_at(step), self.config.mask_id, rng)

    def put(self, weights: Arrays) -> None:
        self.model.update(tree_unflatten(list(weights.items())))

    def gradients(self, masked: Masked, state: State, entropy: CrossEntropy) -> tuple[mx.array, Arrays]:
        def loss(weights: Arrays) -> mx.array:
            self.put(weights)
            return masked_loss(self.model, masked, entropy)

        value, gradients = mx.value_and_grad(loss)(state.weights)
        return value, gradients

    def run(self, resume: bool = False, monitor: Monitor | None = None, stop_after: int | None = None) -> None:
        """Train to the last step, or stop after `stop_after` steps of this call."""
        state, first = State.start(dict(tree_flatten(self.model.parameters()))), 0
        if resume and (found := load_checkpoint(self.folder)):
            state, first = found
        last = self.config.steps if stop_after is None else min(first + stop_after, self.config.steps)
        with fast_cpu() as entropy, self.progress() as progress, (self.folder / "log.jsonl").open("a") as log:
            task = progress.add_task("training", total=self.config.steps, completed=first, loss=float("nan"))
            masked = self.masked(first) if first < last else None
            losses: list[float] = []
            began, samples = time.perf_counter(), 0
            for step in range(first, last):
                assert masked is not None
                samples += len(masked.ids)
                value, gradients = self.gradients(masked, state, entropy)
                state, norm = self.optimizer(state, gradients, step)
                mx.async_eval(state.flat(), value, norm)  # type: ignore[no-untyped-call]
                # The next batch is drawn while this step computes.
                masked = self.masked(step + 1) if step + 1 < last else None
                losses.append(float(value))
                done = step + 1
                progress.update(task, completed=done, loss=losses[-1])
                if done % self.config.log_every == 0 or done == last:
                    seconds = time.perf_counter() - began
                    record = {
                        "step": done,
                        "loss": float(np.mean(losses)),
                        "norm": norm.item(),
                        "rate": self.config.optimizer.rate(step, self.config.steps),
                        "samples_per_second": samples / seconds,
                    }
                    if monitor is not None and (done % self.config.monitor_every == 0 or done == self.config.steps):
                        self.put(state.average)
                        record |= monitor(self.model)
                    log.write(json.dumps(record) + "\n")
                    log.flush()
                    losses, samples, began = [], 0, time.perf_counter()
                if done % self.config.save_every == 0 or done == last:
                    save_checkpoint(self.folder, state, done)
        self.put(state.average)

    @staticmethod
    def progress() -> Progress:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        return Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"))
