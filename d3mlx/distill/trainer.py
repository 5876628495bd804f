"""The training loop: passes from an objective, gradients, an optimizer, checkpoints, a log.

Step k depends only on k and the seed, so a killed and resumed run ends with the weights of an uninterrupted run.
Trainable parameters are stored in float32 and cast to the dtype in which the model computes. With `mlx.launch`, every
process computes its share of each pass, and the first process writes the files.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from d3mlx.checkpoints.headers import read_header
from d3mlx.checkpoints.loader import compute_dtype
from d3mlx.distill.losses import Terms
from d3mlx.distill.objectives import Objective
from d3mlx.distill.optimizer import Arrays, Optimizer, OptimizerConfig, State
from d3mlx.errors import CheckpointError, DataError
from d3mlx.files import append, save_arrays

Monitor = Callable[[nn.Module], dict[str, float]]
"""Returns figures of a model for the log."""

Saver = Callable[[Arrays, int], None]
"""Receives the trained weights and the number of finished steps, after every checkpoint and when a run resumes."""

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    """Length of a run and the intervals, in steps, of log, checkpoints and monitor."""

    steps: int
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    monitor_every: int = 1000
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True)
class Report:
    """Result of a step. step: counts from 1. sequences, tokens: in all forwards of all processes."""

    step: int
    loss: float
    terms: dict[str, float]
    figures: dict[str, float]
    norm: float
    rate: float
    sequences: int
    tokens: int


class Watcher(Protocol):
    """A display of a run."""

    def begin(self, first: int, steps: int) -> None:
        """Show a run of `steps` steps of which `first` are finished."""
        ...

    def step(self, report: Report) -> None:
        """Show the result of a step."""
        ...


def save_checkpoint(folder: Path, state: State, step: int) -> None:
    """Write the checkpoint after `step` steps."""
    save_arrays(folder / CHECKPOINT, state.flat(), {"step": str(step)})


def load_checkpoint(folder: Path) -> tuple[State, int] | None:
    """Return the state and the number of finished steps; None without a checkpoint. Raises CheckpointError."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        read_header(path)
        loaded: Any = mx.load(str(path), return_metadata=True)
        arrays, metadata = loaded
        return State.of_flat(arrays), int(metadata["step"])
    except (CheckpointError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"Cannot resume the run: {path} is damaged. Train into another folder.") from error


class Log:
    """The file log.jsonl with one record per `every` steps. Its losses are means since the previous record."""

    def __init__(self, path: Path, every: int):
        self.path, self.file, self.every = path, path.open("ab"), every
        self.reports: list[Report] = []
        self.began = time.perf_counter()

    def step(self, report: Report, last: bool, figures: Callable[[], dict[str, float]]) -> None:
        """Add a step, and write a record if it is due. figures: called for a record only."""
        self.reports.append(report)
        if report.step % self.every and not last:
            return
        seconds = time.perf_counter() - self.began
        record = {
            "step": report.step,
            "loss": float(np.mean([r.loss for r in self.reports])),
            **{name: float(np.mean([r.terms[name] for r in self.reports])) for name in report.terms},
            **report.figures,
            "norm": report.norm,
            "rate": report.rate,
            "sequences_per_second": sum(r.sequences for r in self.reports) / seconds,
            "tokens_per_second": sum(r.tokens for r in self.reports) / seconds,
            "peak_memory": int(mx.get_peak_memory()),
            **figures(),
        }
        append(self.file, self.path, json.dumps(record).encode() + b"\n")
        self.reports, self.began = [], time.perf_counter()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Trainer:
    """Trains the trainable parameters of `model` in place."""

    def __init__(
        self, model: nn.Module, objective: Objective, config: TrainConfig, folder: Path, saver: Saver | None = None
    ):
        self.model, self.objective, self.config, self.folder, self.saver = model, objective, config, folder, saver
        self.optimizer = Optimizer(config.optimizer, config.steps)
        self.dtype = compute_dtype(model)
        self.world = mx.distributed.init()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def writes(self) -> bool:
        """Return whether this process writes the files."""
        return self.world.rank() == 0

    def put(self, weights: Arrays) -> None:
        """Set the model's weights, cast to its dtype."""
        self.model.update(tree_unflatten([(name, value.astype(self.dtype)) for name, value in weights.items()]))

    def begin(self, resume: bool) -> tuple[State, int]:
        """Return the state and the step to begin with, the same in every process. Raises CheckpointError."""
        state, step = self.own_state(resume)
        return self.from_first(state, step) if self.world.size() > 1 else (state, step)

    def own_state(self, resume: bool) -> tuple[State, int]:
        """Return this process's state and step. Raises CheckpointError if the checkpoint does not fit the model."""
        trainable: Any = tree_flatten(self.model.trainable_parameters())
        weights = {name: value.astype(mx.float32) for name, value in trainable}
        start = State.start(weights, averaged=self.config.optimizer.average is not None)
        checkpoint = load_checkpoint(self.folder) if resume and self.writes else None
        state, step = checkpoint or (start, 0)
        shapes, wanted = ({name: value.shape for name, value in s.flat().items()} for s in (state, start))
        if shapes != wanted:
            raise CheckpointError(
                f"{self.folder / CHECKPOINT} has other trainable parameters. Resume with the settings of that run, or "
                "train into an empty folder."
            )
        return state, step

    def from_first(self, state: State, step: int) -> tuple[State, int]:
        """Return the state and step of the first process in every process. Others may not have access to its folder.

        Processes must communicate in the same order, and a checkpoint lists its arrays in another order than a model.
        """
        share, flat = 1.0 if self.writes else 0.0, state.flat()
        shared = {name: mx.distributed.all_sum(flat[name] * share) for name in sorted(flat)}
        mx.eval(shared)
        return State.of_flat(shared), int(float(mx.distributed.all_sum(mx.array(step * share))))

    def gradients(self, forward: Any, state: State) -> tuple[tuple[mx.array, Terms], Arrays]:
        """Return the loss of a forward with its terms, and the gradients."""

        def loss(weights: Arrays) -> tuple[mx.array, Terms]:
            self.put(weights)
            return self.objective.loss(self.model, forward)

        return mx.value_and_grad(loss)(state.weights)

    def step(self, passes: list[Any], state: State) -> tuple[dict[str, mx.array], Arrays]:
        """Return the sums over all passes, as means of all processes: loss and its terms, and the gradients."""
        values: dict[str, mx.array] = {}
        total: Arrays = {}
        for i, forward in enumerate(passes):
            (value, terms), gradients = self.gradients(forward, state)
            for name, part in {"loss": value, **terms}.items():
                values[name] = values[name] + part if name in values else part
            total = {name: total[name] + g for name, g in gradients.items()} if total else gradients
            # Evaluate one pass at a time, so that its activations are freed before the next pass. Evaluate before the
            # optimizer: with it in the same graph, MLX would recompute all checkpointed layers at the same time.
            evaluate = mx.async_eval if i + 1 == len(passes) else mx.eval
            evaluate(values, total)
        if self.world.size() > 1:
            # average_gradients returns a nested dict, split at the dots of the names.
            total = dict(tree_flatten(nn.average_gradients(total)))
            values = dict(tree_flatten(nn.average_gradients(values)))
        return values, total

    def run(
        self,
        resume: bool = False,
        monitor: Monitor | None = None,
        stop_after: int | None = None,
        watcher: AbstractContextManager[Watcher] | None = None,
    ) -> int:
        """Train to the last step, or for `stop_after` steps. Return the number of steps of this call.

        watcher: display of the run, used by the process that writes. Raises DataError if the loss is not a number. In
        this case nothing of the step is saved.
        """
        state, first = self.begin(resume)
        last = self.config.steps if stop_after is None else min(first + stop_after, self.config.steps)
        if first and self.writes and self.saver is not None:
            # A run that was killed after its checkpoint may not have saved these weights.
            self.saver(state.result, first)
        with ExitStack() as stack:
            watch = stack.enter_context(watcher) if watcher is not None and self.writes else None
            log = Log(self.folder / "log.jsonl", self.config.log_every) if self.writes else None
            if log is not None:
                stack.callback(log.close)
            if watch is not None:
                watch.begin(first, self.config.steps)
            passes = self.objective.passes(first) if first < last else []
            for step in range(first, last):
                mx.random.seed(self.seed_of(step))
                sequences, tokens = (
                    sum(len(forward.ids) for forward in passes),
                    sum(forward.ids.size for forward in passes),
                )
                values, gradients = self.step(passes, state)
                state, norm = self.optimizer(state, gradients, step)
                mx.async_eval(state.flat(), values, norm)  # type: ignore[no-untyped-call]
                # Draw the next batch while this step is computed.
                passes = self.objective.passes(step + 1) if step + 1 < last else []
                done = step + 1
                numbers = {name: float(value) for name, value in values.items()}
                self.check(numbers["loss"], float(norm), step)
                if log is None:
                    continue
                size = self.world.size()
                rate = self.config.optimizer.rate(step, self.config.steps)
                figures = self.objective.figures(step)
                loss = numbers.pop("loss")
                report = Report(done, loss, numbers, figures, float(norm), rate, sequences * size, tokens * size)
                if watch is not None:
                    watch.step(report)
                log.step(report, done == last, lambda: self.measured(state, monitor, done))  # noqa: B023
                if done % self.config.save_every == 0 or done == last:
                    self.save(state, done)
        self.put(state.result)
        return last - first

    def seed_of(self, step: int) -> int:
        """Return the seed of MLX's own generator for a step, which dropout uses."""
        return int(np.random.SeedSequence([self.config.seed, step, self.world.rank()]).generate_state(1)[0])

    def check(self, loss: float, norm: float, step: int) -> None:
        """Raise DataError if the loss or the norm of the gradients is not finite."""
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise DataError(
                f"The loss or its gradient is not a number in step {step + 1}, which used "
                f"{self.objective.origin(step)}. Check this data, or lower the learning rate."
            )

    def measured(self, state: State, monitor: Monitor | None, done: int) -> dict[str, float]:
        """Return the monitor's figures, if they are due."""
        if monitor is None or (done % self.config.monitor_every and done != self.config.steps):
            return {}
        self.put(state.result)
        return monitor(self.model)

    def save(self, state: State, done: int) -> None:
        """Write the checkpoint, then the weights. Weights without a checkpoint would look like those of another run."""
        save_checkpoint(self.folder, state, done)
        if self.saver is not None:
            self.saver(state.result, done)
