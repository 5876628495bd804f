"""Which blocks are eligible: the whole canvas, one block after another, or d3LLM's several at once.

A schedule is a frozen config that lays the blocks out as a table; `advance` opens and activates them as masks go.
Masked positions below `ActiveBlocks.end` may commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.options import Range

START, END, MASKS, STATE, ADD, FILL = range(6)
"""Columns of a block table, int32 [G, 6]: the span, its masked positions, the block's state, and two limits.

ADD is the most masks with which the block after it is added, FILL the most with which that one becomes full.
"""

CLOSED, OPEN, FULL = range(3)
"""States: not added yet; commits only what passes by itself; must also make progress."""

BLOCK_SIZE = Range("a number of tokens", 1)
SHARE = Range("a share of a block", 0, 1)
AHEAD = Range("a number of blocks", 0, 1_000_000)


@dataclass(frozen=True)
class Block:
    """One block as it stands before a forward.

    `full` blocks ("fully activated" in d3LLM) must make progress in every step; the others commit only what passes the
    acceptance rule by itself.
    """

    start: int
    end: int
    masks: int
    full: bool


@dataclass(frozen=True)
class ActiveBlocks:
    """What one step may touch: the blocks that exist, in order, the last of them ending at `end`."""

    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, table: Ints) -> ActiveBlocks:
        """Return the blocks that a table [G, 6] has added."""
        rows = table[: np.count_nonzero(table[:, STATE])].tolist()
        return cls(tuple(Block(start, end, masks, state == FULL) for start, end, masks, state, *_ in rows))

    @property
    def end(self) -> int:
        return self.blocks[-1].end

    @property
    def first_full(self) -> Block:
        """The first full block with masks: a step that commits nothing else commits here."""
        return next(block for block in self.blocks if block.full and block.masks)


class Schedule(Protocol):
    """`ahead`: blocks of masks that take part beyond those that were added; None for all there are."""

    @property
    def ahead(self) -> int | None: ...

    def block_table(self, canvas: Canvas) -> Ints:
        """Return the block table before the first step, int32 [G, 6]."""
        ...


def make_block_table(canvas: Canvas, start: int, size: int, add: float = 1, activation: float = 1) -> Ints:
    """Return the table [G, 6] of blocks of `size` positions from `start` to the end of the canvas.

    The last block may be shorter. The next block is added, and becomes full, at these shares of the one before it.
    """
    rows = []
    for first in range(start, len(canvas), size):
        end = min(first + size, len(canvas))
        rows.append((first, end, 0, CLOSED, most_masks(end - first, add), most_masks(end - first, activation)))
    table = np.array(rows, np.int32)
    table[0, STATE] = FULL
    return advance(table, canvas)


def advance(table: Ints, canvas: Canvas) -> Ints:
    """Return the table [G, 6] for the canvas as it is now.

    A step adds one block. Where no block that was added has a mask, more are added until one has.
    """
    after = table.copy()
    before = np.concatenate([[0], np.cumsum(canvas.masked)])
    after[:, MASKS] = before[table[:, END]] - before[table[:, START]]
    after[1:, STATE] = next_states(after)
    while not after[after[:, STATE] > CLOSED, MASKS].any() and after[:, MASKS].any():
        after[1:, STATE] = next_states(after)
    return after


def next_states(table: Ints) -> Ints:
    """Return the states [G - 1] of all blocks but the first, given the masks and states of the table [G, 6]."""
    before, masks, states = table[:-1, STATE], table[:-1, MASKS], table[1:, STATE]
    active = np.where(masks <= table[:-1, FILL], FULL, OPEN)
    added = np.where((before > CLOSED) & (masks <= table[:-1, ADD]), active, CLOSED)
    return np.where(states == CLOSED, added, np.maximum(states, active))


def active_end(table: Ints, ahead: int | None) -> int:
    """Return the end of the positions that take part: `ahead` blocks beyond those that were added.

    Blocks without masks at the end do not count: the end of the answer has filled them. Some block has masks.
    """
    if ahead is None:
        return int(table[-1, END])
    near = table[: np.count_nonzero(table[:, STATE]) + ahead]
    return int(near[near[:, MASKS] > 0][-1, END])


def most_masks(size: int, share: float) -> int:
    """The most masks with which a block of `size` positions has at least this share of its tokens.

    Computed and rounded as published: a tenth of ten is two tokens, because 1 - 9 / 10 is less than 0.1.
    """
    return max(masks for masks in range(size + 1) if 1 - masks / size >= share)


@dataclass(frozen=True)
class WholeCanvas:
    """Every masked position is eligible in every step (Dream's own sampler)."""

    ahead: ClassVar[int | None] = None

    def block_table(self, canvas: Canvas) -> Ints:
        return make_block_table(canvas, canvas.prompt_length, len(canvas))


@dataclass(frozen=True)
class SequentialBlocks:
    """One block after another: the next one opens when no mask is left before it (semi-autoregressive decoding)."""

    block_size: int
    ahead: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        BLOCK_SIZE.check("block-size", self.block_size)

    def block_table(self, canvas: Canvas) -> Ints:
        return make_block_table(canvas, canvas.prompt_length, self.block_size)


@dataclass(frozen=True)
class MultiBlock:
    """d3LLM's multi-block decoding (d3LLM paper, section on entropy-based multi-block decoding).

    A new block is added once the newest one has `block_add` of its tokens (one block a step); a block becomes full
    once the one before it has `activation` of its tokens. Both are shares in 0..1; with 1 and 1 this is
    `SequentialBlocks`. `ahead`: blocks of masks that take part beyond those that were added; with None all of them do
    from the start, so a forward sees how long the answer may become.
    """

    block_size: int
    block_add: float
    activation: float
    ahead: int | None = None

    def __post_init__(self) -> None:
        BLOCK_SIZE.check("block-size", self.block_size)
        SHARE.check("block-add", self.block_add)
        SHARE.check("activation", self.activation)
        if self.ahead is not None:
            AHEAD.check("ahead", self.ahead)

    def block_table(self, canvas: Canvas) -> Ints:
        return make_block_table(canvas, canvas.prompt_length, self.block_size, self.block_add, self.activation)
