"""Schedules, which choose the eligible blocks: the whole canvas, one block after another, or several (d3LLM).

A schedule is a frozen config that makes a table of blocks. `advance` adds and activates blocks as tokens commit. Masked
positions below `ActiveBlocks.end` may commit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.options import Range
from d3mlx.errors import ConfigError
from d3mlx.models.fields import MOST_BLOCK

START, END, MASKS, STATE, ADD, FILL = range(6)
"""Columns of a block table, int32 [G, 6]: the span, its number of masks, the block's state, and two limits.

ADD: the next block is added when this block has at most this many masks. FILL: then the next block becomes full.
"""

CLOSED, OPEN, FULL = range(3)
"""States of a block: not added yet; commits only tokens that pass the rule; must commit a token in every step."""

BLOCK_SIZE = Range("a number of tokens", 1, MOST_BLOCK)
SHARE = Range("a share of a block", 0, 1)
AHEAD = Range("a number of blocks", 0, 1_000_000)


@dataclass(frozen=True)
class Block:
    """One block before a forward: positions [start, end), with `masks` masked positions.

    full: the block must commit a token in every step ("fully activated" in d3LLM). Other blocks commit only tokens that
    pass the acceptance rule.
    """

    start: int
    end: int
    masks: int
    full: bool


@dataclass(frozen=True)
class ActiveBlocks:
    """The blocks in which a step may commit, in order."""

    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, table: Ints) -> ActiveBlocks:
        """Return the blocks that are added in a table, int32 [G, 6]."""
        rows = table[: np.count_nonzero(table[:, STATE])].tolist()
        return cls(tuple(Block(start, end, masks, state == FULL) for start, end, masks, state, *_ in rows))

    @property
    def end(self) -> int:
        return self.blocks[-1].end

    @property
    def first_full(self) -> Block:
        """Return the first full block with masks. A step that commits no other token commits one here."""
        return next(block for block in self.blocks if block.full and block.masks)


class Schedule(Protocol):
    """A schedule. ahead: number of blocks after the added ones whose masks are active; None for all blocks."""

    @property
    def ahead(self) -> int | None: ...

    def block_table(self, canvas: Canvas) -> Ints:
        """Return the block table before the first step, int32 [G, 6]."""
        ...


def make_block_table(canvas: Canvas, start: int, size: int, add: float = 1, activation: float = 1) -> Ints:
    """Return the table, int32 [G, 6], of blocks of `size` positions from `start` to the end of the canvas.

    The last block may be shorter. add, activation: shares of a block, 0 to 1, that must be committed before the next
    block is added and before it becomes full.
    """
    rows = []
    for first in range(start, len(canvas), size):
        end = min(first + size, len(canvas))
        rows.append((first, end, 0, CLOSED, most_masks(end - first, add), most_masks(end - first, activation)))
    table = np.array(rows, np.int32)
    table[0, STATE] = FULL
    return advance(table, canvas)


def advance(table: Ints, canvas: Canvas) -> Ints:
    """Return the table, int32 [G, 6], updated for the current canvas.

    A step adds at most one block. If no added block has a mask, more blocks are added until one has.
    """
    after = table.copy()
    before = np.concatenate([[0], np.cumsum(canvas.masked)])
    after[:, MASKS] = before[table[:, END]] - before[table[:, START]]
    after[1:, STATE] = next_states(after)
    while not after[after[:, STATE] > CLOSED, MASKS].any() and after[:, MASKS].any():
        after[1:, STATE] = next_states(after)
    return after


KEPT_BLOCKS = 32
"""Number of complete blocks that the table of a block-causal model keeps before the open one."""


def without_complete(table: Ints) -> Ints:
    """Return the table without all but the last complete blocks, so that a step of a long answer takes no longer."""
    unfinished = np.flatnonzero(table[:, MASKS])
    first = int(unfinished[0]) if len(unfinished) else len(table)
    return table[max(first - KEPT_BLOCKS, 0) :]


def next_states(table: Ints) -> Ints:
    """Return the next states, int32 [G - 1], of all blocks except the first. table: int32 [G, 6]."""
    before, masks, states = table[:-1, STATE], table[:-1, MASKS], table[1:, STATE]
    active = np.where(masks <= table[:-1, FILL], FULL, OPEN)
    added = np.where((before > CLOSED) & (masks <= table[:-1, ADD]), active, CLOSED)
    return np.where(states == CLOSED, added, np.maximum(states, active))


def active_end(table: Ints, ahead: int | None) -> int:
    """Return the end of the active part of the canvas: `ahead` blocks after the added blocks.

    Blocks without masks at the end are left out, because an end token has filled them. At least one block has masks.
    """
    if ahead is None:
        return int(table[-1, END])
    near = table[: np.count_nonzero(table[:, STATE]) + ahead]
    return int(near[near[:, MASKS] > 0][-1, END])


def most_masks(size: int, share: float) -> int:
    """Return the most masks that a block of `size` positions may have if `share` of it must be committed.

    The rounding is as published: a share of 0.1 of ten positions is two tokens, because 1 - 9 / 10 is less than 0.1.
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
    """One block after another: a block opens when no mask is left before it (semi-autoregressive decoding)."""

    block_size: int
    ahead: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        BLOCK_SIZE.check("block-size", self.block_size)

    def block_table(self, canvas: Canvas) -> Ints:
        return make_block_table(canvas, canvas.prompt_length, self.block_size)


@dataclass(frozen=True)
class AlignedBlocks:
    """One block after another, with blocks at multiples of their size from position 0 (block-causal models).

    block_size: None for that of the model. sub_block: size of the parts of a block that open one after another; None
    for whole blocks. fits: reduce a sub_block that does not divide the block to their greatest common divisor. The
    canvas has the block size; `Decoder.block_size_of` chooses it.
    """

    block_size: int | None = None
    sub_block: int | None = None
    fits: bool = False
    ahead: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        for name, size in (("block-size", self.block_size), ("sub-block-size", self.sub_block)):
            if size is not None:
                BLOCK_SIZE.check(name, size)

    def block_table(self, canvas: Canvas) -> Ints:
        block = canvas.block_size
        if block is None:
            raise ConfigError("This decoder needs the block size of the canvas. Make the canvas with a block_size.")
        size = math.gcd(self.sub_block or block, block) if self.fits else self.sub_block or block
        if block % size:
            raise ConfigError(f"sub-block-size must divide the block size {block}, and {size} does not.")
        return make_block_table(canvas, canvas.prompt_length // size * size, size)


@dataclass(frozen=True)
class MultiBlock:
    """d3LLM's multi-block decoding (d3LLM paper, section on entropy-based multi-block decoding).

    block_add: share of the newest block, 0 to 1, that must be committed before the next one is added (one per step).
    activation: share of a block, 0 to 1, that must be committed before the next one becomes full. With 1 and 1 this is
    `SequentialBlocks`. ahead: number of blocks after the added ones whose masks are active; with None, forwards see the
    whole canvas from the start, and so the maximum length of the answer.
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
