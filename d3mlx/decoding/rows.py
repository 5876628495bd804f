"""Which positions a step computes; every other position is read from the cache.

A row policy is a frozen config with explicit state: `start(canvas)`, then `step(canvas, view, state) -> (plan, state)`.
All published caches are a choice of rows over one positional store: what a plan leaves out keeps the K/V that an
earlier forward gave it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.schedule import Block, View
from d3mlx.errors import ConfigError

Kind = Literal["first", "step", "refresh"]
"""A plan is a block's full pass before its cached steps, a step, or a full pass for the sake of the cache."""


@dataclass(frozen=True)
class Plan:
    """The rows of one forward: ascending positions, and what the forward is for."""

    positions: Ints
    kind: Kind = "step"


def run(start: int, end: int, kind: Kind = "step") -> Plan:
    return Plan(np.arange(start, end, dtype=np.int32), kind)


class RowPolicy(Protocol):
    """`cached`: some step reads positions it does not compute."""

    @property
    def cached(self) -> bool: ...

    def start(self, canvas: Canvas) -> Any: ...

    def step(self, canvas: Canvas, view: View, state: Any) -> tuple[Plan, Any]: ...


@dataclass(frozen=True)
class Full:
    """Every position, every step; exact."""

    cached: bool = False

    def start(self, canvas: Canvas) -> None:
        return None

    def step(self, canvas: Canvas, view: View, state: None) -> tuple[Plan, None]:
        return run(0, len(canvas)), None


@dataclass(frozen=True)
class Prefix:
    """Fast-dLLM's prefix cache: a full pass opens a block, then steps compute from its start to the end."""

    cached: bool = True

    def start(self, canvas: Canvas) -> int:
        """State: start of the block whose full pass is done."""
        return -1

    def step(self, canvas: Canvas, view: View, state: int) -> tuple[Plan, int]:
        start = view.focus.start
        return (run(0, len(canvas), "first") if start != state else run(start, len(canvas))), start


@dataclass(frozen=True)
class Dual:
    """Fast-dLLM's dual cache: a full pass opens a block, then steps compute the block alone."""

    cached: bool = True

    def start(self, canvas: Canvas) -> int:
        """State: start of the block whose full pass is done."""
        return -1

    def step(self, canvas: Canvas, view: View, state: int) -> tuple[Plan, int]:
        block = view.focus
        return (run(0, len(canvas), "first") if block.start != state else run(block.start, block.end)), block.start


@dataclass(frozen=True)
class Stamps:
    """Progress of the delayed cache.

    step: forwards so far. cached: length of the prefix that is no longer recomputed. written: whether any is. done_at:
    for the prompt and each block in order, the step at which it was first seen complete.
    """

    step: int
    cached: int
    written: bool
    done_at: tuple[int | None, ...]


@dataclass(frozen=True)
class Delayed:
    """d3LLM's cache: a block's K/V settle for `delay` steps after it is complete, then join the cached prefix.

    While a block settles, and every `refresh_interval` steps, the whole sequence is recomputed. `one_at_a_time` (LLaDA)
    starts the clock of a block only when the one before it is cached; otherwise (Dream) several settle together.
    """

    delay: int = 2
    refresh_interval: int = 10000
    one_at_a_time: bool = True
    cached: bool = True

    def __post_init__(self) -> None:
        if self.delay < 0:
            raise ConfigError(f"The cache delay is a number of steps, 0 or more, not {self.delay}.")
        if self.refresh_interval < 1:
            raise ConfigError(f"The refresh interval is a number of steps, 1 or more, not {self.refresh_interval}.")

    def start(self, canvas: Canvas) -> Stamps:
        return Stamps(step=0, cached=0, written=False, done_at=(0,))

    def step(self, canvas: Canvas, view: View, state: Stamps) -> tuple[Plan, Stamps]:
        now = state.step + 1
        prompt = Block(0, canvas.prompt_length, 0, full=True)
        blocks = (prompt, *view.blocks)
        done_at = list(state.done_at) + [None] * (len(blocks) - len(state.done_at))
        ready = state.cached
        settling = False
        for i, block in enumerate(blocks):
            if block.end <= state.cached:
                continue
            if block.masks:
                break
            stamp = done_at[i]
            if stamp is None:
                done_at[i] = stamp = now
            if now - stamp >= self.delay:
                ready = block.end
                continue
            settling = True
            if self.one_at_a_time:
                break
        state = replace(state, step=now, done_at=tuple(done_at))
        if ready > state.cached:
            return run(state.cached, len(canvas)), replace(state, cached=ready, written=True)
        if state.written and not settling and now % self.refresh_interval:
            return run(state.cached, len(canvas)), state
        return run(0, len(canvas), "refresh" if state.written else "step"), state
