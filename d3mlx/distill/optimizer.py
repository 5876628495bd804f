"""AdamW with gradient clipping and an optional moving average of the weights, as one fused update per array."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

Arrays = dict[str, mx.array]
Schedule = Literal["constant", "cosine", "late-cosine"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer.

    warmup: steps in which the rate increases linearly. clip: limit of the norm of the gradients. average: decay of the
    moving average of the weights; None turns it off.
    """

    peak_rate: float = 1.5e-3
    final_rate: float = 3e-5
    warmup: int = 200
    schedule: Schedule = "late-cosine"
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float | None = 0.999

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step: linear warm-up, then constant or a cosine down to `final_rate`.

        The cosine begins after the warm-up, or with late-cosine in the middle of the run.
        """
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.peak_rate
        if self.schedule == "cosine":
            progress = (step - self.warmup) / max(steps - self.warmup, 1)
        else:
            progress = max(0.0, 2 * step / steps - 1)
        return self.final_rate + (self.peak_rate - self.final_rate) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass
class State:
    """The arrays that a step changes. first, second: moments of the gradients. average: empty without an average."""

    weights: Arrays
    average: Arrays
    first: Arrays
    second: Arrays

    @classmethod
    def start(cls, weights: Arrays, averaged: bool = True) -> State:
        """Return the state before the first step."""
        zeros = {name: mx.zeros_like(value) for name, value in weights.items()}
        return cls(dict(weights), dict(weights) if averaged else {}, zeros, dict(zeros))

    @property
    def result(self) -> Arrays:
        """Return the weights to use after training: the moving average if there is one."""
        return self.average or self.weights

    def flat(self) -> Arrays:
        """Return all arrays by part and name, for a file."""
        return {f"{part}/{name}": value for part, arrays in vars(self).items() for name, value in arrays.items()}

    @classmethod
    def of_flat(cls, flat: Arrays) -> State:
        """Return the state for the result of `flat`."""
        parts: dict[str, Arrays] = {"weights": {}, "average": {}, "first": {}, "second": {}}
        for key, value in flat.items():
            part, name = key.split("/", 1)
            parts[part][name] = value
        return cls(**parts)


Scalars = tuple[mx.array, mx.array, mx.array, mx.array, mx.array]
Fused = Callable[..., tuple[mx.array, ...]]


def fused_update(config: OptimizerConfig) -> Fused:
    """Return the function that updates one array. Scalars are arrays, so that it is compiled only once per run."""
    b1, b2 = config.betas

    def adamw(
        weight: mx.array, first: mx.array, second: mx.array, gradient: mx.array, scalars: Scalars
    ) -> tuple[mx.array, ...]:
        shrink, rate, decay, correction, _ = scalars
        gradient = gradient * shrink
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient * gradient
        weight = weight * decay - rate * first / (mx.sqrt(second) * correction + config.eps)
        return weight, first, second

    def averaged(
        weight: mx.array, first: mx.array, second: mx.array, gradient: mx.array, scalars: Scalars, average: mx.array
    ) -> tuple[mx.array, ...]:
        weight, first, second = adamw(weight, first, second, gradient, scalars)
        keep = scalars[-1]
        return weight, first, second, average * keep + weight * (1 - keep)

    update = adamw if config.average is None else averaged
    if mx.default_device() == mx.Device(mx.cpu) and shutil.which("g++") is None:
        return update
    compiled: Fused = mx.compile(update, shapeless=True)
    return compiled


class Optimizer:
    """AdamW for a run of a number of steps."""

    def __init__(self, config: OptimizerConfig, steps: int):
        self.config, self.steps = config, steps
        self.update = fused_update(config)

    def __call__(self, state: State, gradients: Arrays, step: int) -> tuple[State, mx.array]:
        """Return the state after `step` (counted from 0) and the norm of the gradients before clipping."""
        config = self.config
        # Sum by name: a checkpoint returns arrays in another order, which would change the rounding.
        squares = (mx.square(gradients[name]).sum() for name in sorted(gradients))
        norm = mx.sqrt(sum(squares, start=mx.array(0.0)))
        shrink = mx.minimum(config.clip / (norm + 1e-6), 1.0)
        b1, b2 = config.betas
        rate = config.rate(step, self.steps)
        adjusted = mx.array(rate / (1 - b1 ** (step + 1)))
        correction = mx.array(1 / math.sqrt(1 - b2 ** (step + 1)))
        keep = mx.array(min(config.average or 0.0, (1 + step) / (10 + step)))
        after = State({}, {}, {}, {})
        for name, gradient in gradients.items():
            decay = mx.array(1 - rate * config.weight_decay if gradient.ndim > 1 else 1.0)
            scalars = (shrink, adjusted, decay, correction, keep)
            arrays = (state.weights[name], state.first[name], state.second[name], gradient, scalars)
            if config.average is None:
                after.weights[name], after.first[name], after.second[name] = self.update(*arrays)
            else:
                after.weights[name], after.first[name], after.second[name], after.average[name] = self.update(
                    *arrays, state.average[name]
                )
        return after, norm
