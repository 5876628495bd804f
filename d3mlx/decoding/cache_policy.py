"""Cache policies, which choose the positions that a step computes. Other positions are read from the cache.

A cache policy is a frozen config with explicit state: `start(canvas, cache)`, then `step(canvas, active, cache,
state) -> (plan, state)`. Every published cache is a choice of rows over the same positional cache: a position that is
not in the plan keeps its keys and values from an earlier forward. A request may start with a cache that contains its
first `cache.length` positions; its first forward then starts there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from d3mlx.cache import KVCache
from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.options import Range
from d3mlx.decoding.schedule import ActiveBlocks, Block

Kind = Literal["first", "step", "refresh", "prefill", "commit"]
"""Purpose of a forward. first: the full pass that opens a block. step: a denoising step. refresh: a full pass for the
cache. prefill: compute keys and values of given tokens. commit: compute the final keys and values of a block. With
shifted logits, the last two also decide the first token of the next block."""


LONG = 1_000_000
"""More steps than any answer takes."""

DELAY = Range("a number of steps")
INTERVAL = Range("a number of steps", 1)
INTERVAL_OR_NEVER = Range("a number of steps (0 for never)")


@dataclass(frozen=True)
class Plan:
    """The rows of one forward.

    positions: int32 [R], absolute, ascending, at least one. length: the rows attend to positions below it; None for the
    active length of the canvas. block_size: size of the blocks of a block-causal model; then a row attends only to its
    own block and to the blocks before it. until: masked positions below it may commit; None for the end of the active
    blocks, 0 for no position.
    """

    positions: Ints
    kind: Kind = "step"
    length: int | None = None
    block_size: int | None = None
    until: int | None = None


def consecutive(start: int, end: int, kind: Kind = "step") -> Plan:
    """Return the plan that computes the positions [start, end)."""
    return Plan(np.arange(start, end, dtype=np.int32), kind)


class CachePolicy(Protocol):
    """A cache policy. cached: whether some step reads positions that it does not compute."""

    @property
    def cached(self) -> bool: ...

    def start(self, canvas: Canvas, cache: KVCache) -> Any:
        """Return the state before the first step."""
        ...

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: Any) -> tuple[Plan, Any]:
        """Return the plan of the next forward and the next state."""
        ...


@dataclass(frozen=True)
class NoCache:
    """No cache: every step computes every position, which is exact."""

    cached: ClassVar[bool] = False

    def start(self, canvas: Canvas, cache: KVCache) -> None:
        return None

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: None) -> tuple[Plan, None]:
        return consecutive(0, canvas.active_length), None


@dataclass(frozen=True)
class Opened:
    """State of the prefix and dual caches.

    base: start of full passes, the length of the initial cache. block: start of the block that the last full pass
    opened, -1 before the first pass.
    """

    base: int
    block: int = -1


@dataclass(frozen=True)
class PrefixCache:
    """Fast-dLLM's prefix cache: a full pass opens a block, then steps compute from the block to the end."""

    cached: ClassVar[bool] = True

    def start(self, canvas: Canvas, cache: KVCache) -> Opened:
        return Opened(cache.length)

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: Opened) -> tuple[Plan, Opened]:
        block = active.first_full
        if block.start != state.block:
            return consecutive(state.base, canvas.active_length, "first"), replace(state, block=block.start)
        return consecutive(block.start, self.end(canvas, block)), state

    def end(self, canvas: Canvas, block: Block) -> int:
        """Return the end of the rows of a step in a block."""
        return canvas.active_length


@dataclass(frozen=True)
class DualCache(PrefixCache):
    """Fast-dLLM's dual cache: a full pass opens a block, then steps compute only the block."""

    def end(self, canvas: Canvas, block: Block) -> int:
        return block.end


@dataclass(frozen=True)
class Stamps:
    """State of the delayed cache.

    step: forwards so far. base: start of full passes, the length of the initial cache. cached: length of the prefix
    that is no longer recomputed. written: whether this request has cached a prefix. done_at: for the prompt and each
    block in order, the step at which it was first complete.
    """

    step: int
    base: int
    cached: int
    written: bool
    done_at: tuple[int | None, ...]


@dataclass(frozen=True)
class DelayedCache:
    """d3LLM's cache: a block joins the cached prefix `delay` steps after it is complete.

    While a complete block waits, and every `refresh_interval` steps, the whole sequence is recomputed. one_at_a_time:
    the delay of a block begins when the block before it is cached (LLaDA); otherwise blocks wait together (Dream).
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


CHUNK = 512
"""Most rows of a prefill in one forward, unless a block is larger."""


@dataclass(frozen=True)
class BlockState:
    """State of the block cache.

    final: end of the blocks whose keys and values are final. opened: start of the last block of which a forward
    computed every row; -1 before the first.
    """

    final: int
    opened: int = -1


@dataclass(frozen=True)
class BlockCache:
    """The exact cache of a block-causal model: blocks that are complete are computed once, and then only read.

    The complete blocks of the prompt are computed first (prefill). Steps compute the rows of the open block. When it is
    complete, one more forward stores its final keys and values (commit).

    fused: the forward of the last prefill or commit also computes the next block, which saves a forward. next_token:
    this forward decides the first token of the next block instead (families with shifted logits). sub_blocks: a step
    computes only the open sub-block, if its first position has a token; the rest of the block is read from the last
    forward of the whole block.
    """

    fused: bool = True
    next_token: bool = False
    sub_blocks: bool = False
    cached: ClassVar[bool] = True

    def start(self, canvas: Canvas, cache: KVCache) -> BlockState:
        return BlockState(cache.length)

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: BlockState) -> tuple[Plan, BlockState]:
        size, part = canvas.block_size or len(canvas), active.first_full
        start = part.start // size * size
        end = min(start + size, len(canvas))
        if state.final == start:
            if self.sub_blocks and state.opened == start and not canvas.masked[part.start]:
                return blocks_of(part.start, part.end, size, length=end), state
            return blocks_of(start, end, size), replace(state, opened=start)
        last = min(start, state.final + max(size, CHUNK // size * size))
        if self.fused and last == start:
            return blocks_of(state.final, end, size, "first"), BlockState(start, start)
        kind: Kind = "prefill" if last <= canvas.prompt_length else "commit"
        until = start + 1 if self.next_token and last == start else 0
        return replace(blocks_of(state.final, last, size, kind), until=until), replace(state, final=last)


def blocks_of(start: int, end: int, size: int, kind: Kind = "step", length: int | None = None) -> Plan:
    """Return the plan that computes [start, end) of a model with blocks of `size`. length: `end` if it is None."""
    return replace(consecutive(start, end, kind), length=length or end, block_size=size)
