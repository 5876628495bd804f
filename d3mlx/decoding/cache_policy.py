"""Which positions a step computes; every other position is read from the cache.

A cache policy is a frozen config with explicit state: `start(canvas, cache)`, then `step(canvas, active, cache,
state) -> (plan, state)`. All published caches are a choice of rows over one positional cache: a position that a plan
leaves out keeps the keys and values that an earlier forward gave it. A request may start with a cache that contains its
first `cache.length` positions; its first forward then starts there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from d3mlx.cache import KVCache
from d3mlx.canvas import Bools, Canvas, Ints
from d3mlx.decoding.options import Range
from d3mlx.decoding.schedule import ActiveBlocks, Block

Kind = Literal["first", "step", "refresh", "prefill", "commit"]
"""What a forward is for: the full pass that opens a block, a step, a full pass for the sake of the cache; or only keys
and values, of given tokens or of a finished block, with nothing to decide."""


LONG = 1_000_000
"""Steps that no answer takes."""

DELAY = Range("a number of steps")
INTERVAL = Range("a number of steps", 1)
INTERVAL_OR_NEVER = Range("a number of steps (0 for never)")
RECENT = Range("a number of steps", 1, LONG)
NEAR = Range("a number of positions", 0, LONG)
MULTIPLE = Range("a number of rows", 1)


@dataclass(frozen=True)
class Plan:
    """The rows of one forward: ascending absolute positions, int32 [R], at least one.

    length: the rows attend to positions below it that were computed before or now; None for the active part of the
    canvas.
    """

    positions: Ints
    kind: Kind = "step"
    length: int | None = None

    @property
    def decides(self) -> bool:
        """Whether masked positions may commit."""
        return self.kind not in ("prefill", "commit")


def consecutive(start: int, end: int, kind: Kind = "step") -> Plan:
    """Return the plan that computes every position from `start` to below `end`."""
    return Plan(np.arange(start, end, dtype=np.int32), kind)


class CachePolicy(Protocol):
    """`cached`: some step reads positions it does not compute."""

    @property
    def cached(self) -> bool: ...

    def start(self, canvas: Canvas, cache: KVCache) -> Any:
        """Return the state before the first step."""
        ...

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: Any) -> tuple[Plan, Any]:
        """Return the rows of the next forward and the next state."""
        ...


@dataclass(frozen=True)
class NoCache:
    """Every position, every step; exact."""

    cached: ClassVar[bool] = False

    def start(self, canvas: Canvas, cache: KVCache) -> None:
        return None

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: None) -> tuple[Plan, None]:
        return consecutive(0, canvas.active_length), None


@dataclass(frozen=True)
class Opened:
    """base: where a full pass starts, after what the cache contained at first. block: start of the block that the last
    full pass opened, -1 before the first."""

    base: int
    block: int = -1


@dataclass(frozen=True)
class PrefixCache:
    """Fast-dLLM's prefix cache: a full pass opens a block, then steps compute from its start to the end."""

    cached: ClassVar[bool] = True

    def start(self, canvas: Canvas, cache: KVCache) -> Opened:
        return Opened(cache.length)

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: Opened) -> tuple[Plan, Opened]:
        block = active.first_full
        if block.start != state.block:
            return consecutive(state.base, canvas.active_length, "first"), replace(state, block=block.start)
        return consecutive(block.start, self.end(canvas, block)), state

    def end(self, canvas: Canvas, block: Block) -> int:
        """Return the end of the rows of a step within a block."""
        return canvas.active_length


@dataclass(frozen=True)
class DualCache(PrefixCache):
    """Fast-dLLM's dual cache: a full pass opens a block, then steps compute the block alone."""

    def end(self, canvas: Canvas, block: Block) -> int:
        return block.end


@dataclass(frozen=True)
class Stamps:
    """SelectiveState of the delayed cache.

    step: forwards so far. base: where a full pass starts, after what the cache contained at first. cached: length of
    the prefix that is no longer recomputed. written: whether any is. done_at: for the prompt and each block in order,
    the step at which it was first seen complete.
    """

    step: int
    base: int
    cached: int
    written: bool
    done_at: tuple[int | None, ...]


@dataclass(frozen=True)
class DelayedCache:
    """d3LLM's cache: a block's K/V settle for `delay` steps after it is complete, then join the cached prefix.

    While a block settles, and every `refresh_interval` steps, the whole sequence is recomputed. `one_at_a_time` (LLaDA)
    starts the clock of a block only when the one before it is cached; otherwise (Dream) several settle together.
    """

    delay: int
    refresh_interval: int
    one_at_a_time: bool
    cached: ClassVar[bool] = True

    def __post_init__(self) -> None:
        DELAY.check("cache-delay", self.delay)
        INTERVAL.check("refresh-interval", self.refresh_interval)

    def start(self, canvas: Canvas, cache: KVCache) -> Stamps:
        return Stamps(step=0, base=cache.length, cached=cache.length, written=False, done_at=(0,))

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: Stamps) -> tuple[Plan, Stamps]:
        now = state.step + 1
        prompt = Block(0, canvas.prompt_length, 0, full=True)
        blocks = (prompt, *active.blocks)
        done_at = list(state.done_at) + [None] * (len(blocks) - len(state.done_at))
        cached = state.cached
        settling = False
        for i, block in enumerate(blocks):
            if block.end <= state.cached:
                continue
            if block.masks:
                break
            seen_at = done_at[i]
            if seen_at is None:
                done_at[i] = seen_at = now
            if now - seen_at >= self.delay:
                cached = block.end
                continue
            settling = True
            if self.one_at_a_time:
                break
        state = replace(state, step=now, done_at=tuple(done_at))
        if cached > state.cached:
            return consecutive(state.cached, canvas.active_length), replace(state, cached=cached, written=True)
        if state.written and not settling and now % self.refresh_interval:
            return consecutive(state.cached, canvas.active_length), state
        return consecutive(state.base, canvas.active_length, "refresh" if state.written else "step"), state


def within(marked: Bools, distance: int) -> Bools:
    """Return bool [L], True at most `distance` positions from a position where `marked` bool [L] is True."""
    reach = min(distance, len(marked))
    before = np.cumsum(np.pad(marked, (reach + 1, reach)), dtype=np.int32)
    return before[2 * reach + 1 :] > before[: len(marked)]


def with_oldest(needed: Bools, written: Ints, count: int) -> Ints:
    """Return `count` ascending positions, int32: the needed ones, then those that were computed longest ago.

    needed: bool [L], True at most `count` times. written: int32 [L], the forward that computed each position last. Of
    equally old positions the lower ones come first.
    """
    length = len(needed)
    order = np.where(needed, -1, written).astype(np.int64) * length + np.arange(length)
    positions = np.argpartition(order, count - 1)[:count]
    positions.sort()
    return positions.astype(np.int32)


@dataclass(frozen=True)
class SelectiveState:
    """SelectiveState of a selective cache.

    step: forwards so far. masked: bool [L], before the last forward. committed_at: int32 [L], the step before which a
    position got its token, far in the past for given ones.
    """

    step: int
    masked: Bools
    committed_at: Ints


@dataclass(frozen=True)
class SelectiveCache:
    """The rows that a step cannot do without: after one pass over everything, the masked positions of active blocks,
    the positions that were committed in the last `recent` steps, whose K/V still describe a mask token, and the tokens
    at most `near` positions from one of those, whose K/V still describe a token near a mask.

    Everything else, the far suffix of masks included, is read from the cache. `source` is 1 for Dream, whose prediction
    for a position comes from the row before it: that row is computed too. Row counts are rounded up to a multiple of
    `multiple`, so that few shapes exist, and filled with the rows computed longest ago. `refresh_interval`: everything
    is computed every so many steps; 0 for never.
    """

    recent: int
    near: int
    multiple: int
    refresh_interval: int
    source: int
    cached: ClassVar[bool] = True

    def __post_init__(self) -> None:
        RECENT.check("recent", self.recent)
        NEAR.check("near", self.near)
        MULTIPLE.check("row-multiple", self.multiple)
        INTERVAL_OR_NEVER.check("refresh-interval", self.refresh_interval)

    def start(self, canvas: Canvas, cache: KVCache) -> SelectiveState:
        return SelectiveState(0, canvas.masked.copy(), np.full(len(canvas), -LONG, np.int32))

    def step(
        self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: SelectiveState
    ) -> tuple[Plan, SelectiveState]:
        now, end = state.step, canvas.active_length
        committed_at = np.where(state.masked & ~canvas.masked, now, state.committed_at).astype(np.int32)
        state = SelectiveState(now + 1, canvas.masked.copy(), committed_at)
        if now == 0:
            return consecutive(cache.length, end, "first"), state
        if self.refresh_interval and now % self.refresh_interval == 0:
            return consecutive(0, end, "refresh"), state
        needed = self.needed(canvas, active, now - committed_at)[:end]
        needed[cache.length :] = True
        count = min(end, self.rounded(int(np.count_nonzero(needed))))
        written = np.concatenate([cache.written, np.full(end - cache.length, now, np.int32)])
        return Plan(with_oldest(needed, written, count)), state

    def needed(self, canvas: Canvas, active: ActiveBlocks, since: Ints) -> Bools:
        """Return bool [L], True at the positions to compute.

        since: int32 [L], steps since the token of each position could first be computed; large for positions that were
        given or are still masked.
        """
        needed = since < self.recent
        needed |= within(needed, self.near) & ~canvas.masked
        # What an end token filled behind the last mask comes after every position that can still change.
        last = int(np.flatnonzero(canvas.masked)[-1])
        needed[last:] &= ~canvas.filled[last:]
        eligible = canvas.masked_before(active.end)
        needed[eligible] = True
        needed[np.maximum(eligible - self.source, 0)] = True
        return needed

    def rounded(self, count: int) -> int:
        return -(-count // self.multiple) * self.multiple
