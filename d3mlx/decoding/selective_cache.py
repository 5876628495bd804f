"""The selective cache policy: a step computes a fixed number of rows, those that matter most."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from d3mlx.cache import KVCache
from d3mlx.canvas import Bools, Canvas, Ints
from d3mlx.decoding.cache_policy import INTERVAL_OR_NEVER, LONG, Kind, Plan, consecutive
from d3mlx.decoding.options import Range
from d3mlx.decoding.schedule import ActiveBlocks

Ranks = NDArray[np.int64]

RECENT = Range("a number of steps", 1, LONG)
NEAR = Range("a number of positions", 0, LONG)
ROWS = Range("a number of rows", 8, LONG)
MASKS = Range("a number of masks", 0, LONG)

FEW = 4
"""Row count of a step that needs no more. On Apple GPUs it costs little more than one row."""

LEAST, MOST = 16, 256
"""Bounds of the masks in the first forward, if their number follows from the answer's length."""

NEVER = 2 * LONG
"""Rank of a position that is not computed, and the distance to a position that does not exist."""


def distances(marked: Bools) -> Ints:
    """Return int32 [L], the distance of each position to the nearest one where `marked` bool [L] is True.

    NEVER if there is none.
    """
    length = len(marked)
    positions = np.arange(length)
    before = np.maximum.accumulate(np.where(marked, positions, -NEVER))
    after = np.minimum.accumulate(np.where(marked, positions, length + NEVER)[::-1])[::-1]
    return np.minimum(np.minimum(positions - before, after - positions), NEVER).astype(np.int32)


def needed_by_masks(canvas: Canvas) -> Bools:
    """Return bool [L], False at the positions that an end token filled after the last mask: no mask needs them."""
    last = int(np.flatnonzero(canvas.masked)[-1])
    return ~canvas.filled | (np.arange(len(canvas)) < last)


def lowest(ranks: Ranks, count: int) -> Ints:
    """Return the `count` ascending positions, int32, with the lowest ranks [L]; lower positions of equal ranks."""
    length = len(ranks)
    order = ranks * length + np.arange(length)
    positions = np.argpartition(order, count - 1)[:count]
    positions.sort()
    return positions.astype(np.int32)


@dataclass(frozen=True)
class SelectiveState:
    """State of the selective cache.

    step: forwards so far. masked: bool [L], the masked positions before the last forward. committed_at: int32 [L], the
    first step that sees the token of a position; -LONG for given positions.
    """

    step: int
    masked: Bools
    committed_at: Ints


@dataclass(frozen=True)
class SelectiveCache:
    """The selective cache: after the first forward, each forward computes `rows` rows, those that matter most.

    In this order: the positions committed in the last `recent` steps, whose keys and values still describe a mask, and
    the masked positions of active blocks, as far as they fit; then the tokens within `near` positions of the former,
    whose keys and values still describe a token near a mask; then further masks, which the cache does not contain yet;
    then the positions computed longest ago. Only masks that are computed may commit. Everything else is read from the
    cache. A step that needs at most FEW rows computes FEW.

    first_masks: the first forward computes at least this many masks; None for half of the answer, from LEAST to MOST.
    Further masks round its rows up to a multiple of `rows`. refresh_interval: steps between two passes over all cached
    positions; 0 for never. source: how many rows before a position its prediction is read from; that row is computed
    too (1 for Dream).
    """

    recent: int
    near: int
    rows: int
    refresh_interval: int
    source: int
    first_masks: int | None = None
    cached: ClassVar[bool] = True

    def __post_init__(self) -> None:
        RECENT.check("recent", self.recent)
        NEAR.check("near", self.near)
        ROWS.check("rows", self.rows)
        INTERVAL_OR_NEVER.check("refresh-interval", self.refresh_interval)
        if self.first_masks is not None:
            MASKS.check("first-masks", self.first_masks)

    def start(self, canvas: Canvas, cache: KVCache) -> SelectiveState:
        return SelectiveState(0, canvas.masked.copy(), np.full(len(canvas), -LONG, np.int32))

    def step(
        self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: SelectiveState
    ) -> tuple[Plan, SelectiveState]:
        now, eligible = state.step, canvas.masked_before(active.end)
        committed_at = np.where(state.masked & ~canvas.masked, now, state.committed_at).astype(np.int32)
        state = SelectiveState(now + 1, canvas.masked.copy(), committed_at)
        if now == 0:
            return self.whole(cache.length, self.first_end(canvas, cache), "first", active), state
        if self.refresh_interval and now % self.refresh_interval == 0:
            return self.whole(0, max(cache.length, int(eligible[0]) + 1), "refresh", active), state
        fresh = self.fresh(canvas, now - committed_at)
        needed = self.with_masks(fresh, eligible)
        ranks = self.ranks(canvas, cache, fresh, needed)
        few = np.count_nonzero(ranks <= self.near) <= FEW
        count = min(FEW if few else self.rows, int(np.count_nonzero(ranks < NEVER)))
        positions = lowest(ranks, count)
        end, until = max(cache.length, int(positions[-1]) + 1), int(np.flatnonzero(needed & canvas.masked)[-1]) + 1
        return Plan(positions, length=end, until=until), state

    def whole(self, start: int, end: int, kind: Kind, active: ActiveBlocks) -> Plan:
        """Return the plan that computes every position from `start` to `end`."""
        return replace(consecutive(start, end, kind), length=end, until=min(active.end, end))

    def first_end(self, canvas: Canvas, cache: KVCache) -> int:
        """Return the end of the first forward, after given positions, active blocks, first masks and a full target."""
        masks = np.flatnonzero(canvas.masked)
        half = min(max(canvas.new_tokens // 2, LEAST), MOST)
        wanted = min(half if self.first_masks is None else max(self.first_masks, 1), len(masks))
        end = max(canvas.active_length, int(masks[wanted - 1]) + 1)
        full = cache.length - (cache.length - end) // self.rows * self.rows
        return max(end, min(full, int(masks[-1]) + 1))

    def fresh(self, canvas: Canvas, since: Ints) -> Bools:
        """Return bool [L], True at the positions committed in the last `recent` steps, as far as they fit.

        since: int32 [L], steps since the token of each position was first seen; large for positions that were given or
        are still masked.
        """
        fresh = (since < self.recent) & needed_by_masks(canvas)
        # One mask and the row of its prediction always fit.
        fresh[np.flatnonzero(fresh)[self.rows - 1 - self.source :]] = False
        return fresh

    def with_masks(self, fresh: Bools, eligible: Ints) -> Bools:
        """Return bool [L], True at the fresh positions and at the first eligible ones that fit, with their sources."""
        masks = np.zeros_like(fresh)
        masks[eligible] = True
        masks[np.maximum(eligible - self.source, 0)] = True
        fitting = np.flatnonzero(masks & ~fresh)[: self.rows - np.count_nonzero(fresh)]
        needed = fresh.copy()
        needed[fitting] = True
        return needed

    def ranks(self, canvas: Canvas, cache: KVCache, fresh: Bools, needed: Bools) -> Ranks:
        """Return int64 [L], the rank of each position: the lowest are computed. Positions of rank NEVER are not."""
        ranks = np.full(len(canvas), NEVER, np.int64)
        ranks[canvas.masked] = self.near + 1
        ranks[: cache.length] = self.near + 2 + cache.written
        distance = distances(fresh)
        near = (distance <= self.near) & ~canvas.masked & needed_by_masks(canvas)
        ranks[near] = distance[near]
        ranks[needed] = 0
        return ranks
