"""Which positions a step computes; every other position is read from the cache.

A row policy is a frozen config with explicit state: `start(canvas)`, then `step(canvas, view, state) -> (plan, state)`.
All published caches are a choice of rows over one positional store: what a plan leaves out keeps the K/V that an
earlier forward gave it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.canvas import Bools, Canvas, Ints
from d3mlx.decoding.schedule import Block, View
from d3mlx.errors import ConfigError
from d3mlx.kernels.choose_rows import choose_rows
from d3mlx.kernels.host import on_device

Kind = Literal["first", "step", "refresh"]
"""A plan is a block's full pass before its cached steps, a step, or a full pass for the sake of the cache."""


LONG = 1_000_000
"""Steps that no answer takes."""


@dataclass(frozen=True)
class Plan:
    """The rows of one forward: ascending positions, from the host or chosen on the device, and what it is for."""

    positions: Ints | mx.array
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

    cached: ClassVar[bool] = False

    def start(self, canvas: Canvas) -> None:
        return None

    def step(self, canvas: Canvas, view: View, state: None) -> tuple[Plan, None]:
        return run(0, canvas.reach), None


@dataclass(frozen=True)
class Prefix:
    """Fast-dLLM's prefix cache: a full pass opens a block, then steps compute from its start to the end."""

    cached: ClassVar[bool] = True

    def start(self, canvas: Canvas) -> int:
        """State: start of the block whose full pass is done."""
        return -1

    def step(self, canvas: Canvas, view: View, state: int) -> tuple[Plan, int]:
        start = view.focus.start
        return (run(0, canvas.reach, "first") if start != state else run(start, canvas.reach)), start


@dataclass(frozen=True)
class Dual:
    """Fast-dLLM's dual cache: a full pass opens a block, then steps compute the block alone."""

    cached: ClassVar[bool] = True

    def start(self, canvas: Canvas) -> int:
        """State: start of the block whose full pass is done."""
        return -1

    def step(self, canvas: Canvas, view: View, state: int) -> tuple[Plan, int]:
        block = view.focus
        return (run(0, canvas.reach, "first") if block.start != state else run(block.start, block.end)), block.start


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
    cached: ClassVar[bool] = True

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
            return run(state.cached, canvas.reach), replace(state, cached=ready, written=True)
        if state.written and not settling and now % self.refresh_interval:
            return run(state.cached, canvas.reach), state
        return run(0, canvas.reach, "refresh" if state.written else "step"), state


def within(chosen: Bools, distance: int) -> Bools:
    """[L], True at most `distance` positions from a chosen one."""
    reach = min(distance, len(chosen))
    before = np.cumsum(np.pad(chosen, (reach + 1, reach)), dtype=np.int32)
    return before[2 * reach + 1 :] > before[: len(chosen)]


@dataclass(frozen=True)
class Ages:
    """Progress of needed rows.

    step: forwards so far. masked [L]: before the last forward. committed_at [L]: the step before which a position got
    its token, far back for the prompt. written, on the device: for each position that takes part, the step that
    computed it last.
    """

    step: int
    masked: Bools
    committed_at: npt.NDArray[np.int32]
    written: mx.array


@dataclass(frozen=True)
class Needed:
    """The rows that a step cannot do without: after one pass over everything, the masked positions of active blocks,
    the positions that were committed in the last `recent` steps, whose K/V still describe a mask token, and the tokens
    at most `near` positions from one of those, whose K/V still describe a token near a mask.

    Everything else, the far suffix of masks included, is read from the cache. `source` is 1 for Dream, whose prediction
    for a position comes from the row before it: that row is computed too. Row counts are rounded up to a multiple of
    `multiple`, so that few shapes exist, and filled with the rows computed longest ago. `refresh_interval`: everything
    is computed every so many steps; 0 for never.
    """

    recent: int = 1
    near: int = 4
    multiple: int = 8
    refresh_interval: int = 0
    source: int = 0
    cached: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.recent <= LONG:
            raise ConfigError(f"Committed rows are computed for 1 to {LONG:,} further steps, not {self.recent}.")
        if not 0 <= self.near <= LONG:
            raise ConfigError(f"near is a distance of 0 to {LONG:,} positions, not {self.near}.")
        if self.multiple < 1:
            raise ConfigError(f"Row counts are rounded up to a multiple of 1 or more, not {self.multiple}.")
        if self.refresh_interval < 0:
            raise ConfigError(f"The refresh interval is a number of steps, 0 for never, not {self.refresh_interval}.")

    def start(self, canvas: Canvas) -> Ages:
        long_ago = np.full(len(canvas), -LONG, np.int32)
        return Ages(0, canvas.masked, long_ago, mx.zeros(0, mx.int32))

    def step(self, canvas: Canvas, view: View, state: Ages) -> tuple[Plan, Ages]:
        now, reach, masked = state.step, canvas.reach, canvas.masked
        committed_at = np.where(state.masked & ~masked, now, state.committed_at).astype(np.int32)
        state = replace(state, step=now + 1, masked=masked, committed_at=committed_at)
        if now == 0 or (self.refresh_interval and now % self.refresh_interval == 0):
            return run(0, reach, "refresh" if now else "first"), replace(state, written=mx.full(reach, now, mx.int32))
        needed = self.needed(canvas, view, now - committed_at)[:reach]
        computed = state.written.size
        needed[computed:] = True
        count = min(reach, self.rounded(int(needed.sum())))
        written = mx.concatenate([state.written, mx.full(reach - computed, now, mx.int32)])
        positions = choose_rows(on_device(needed.astype(np.uint8)), written, count, now)
        written = mx.put_along_axis(written, positions, mx.full(count, now, mx.int32), axis=0)
        return Plan(positions), replace(state, written=written)

    def needed(self, canvas: Canvas, view: View, since: Ints) -> Bools:
        """[L]: the positions to compute. since [L]: steps since each one's token was first there to be computed, long
        for those that never had a mask or still have one."""
        needed = since < self.recent
        needed |= within(needed, self.near) & ~canvas.masked
        if canvas.early_stop:
            # What the end of the answer filled is past every position that can still change.
            needed[canvas.prompt_length + len(canvas.answer) :] = False
        eligible = canvas.masked_before(view.end)
        needed[eligible] = True
        needed[np.maximum(eligible - self.source, 0)] = True
        return needed

    def rounded(self, count: int) -> int:
        return -(-count // self.multiple) * self.multiple
