"""Which blocks are eligible: the whole canvas, one block after another, or d3LLM's several at once.

A schedule is a frozen config with explicit state: `start(canvas)` gives the state, `step(canvas, state)` the view of
this step and the next state. Masked positions below `View.end` may commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from d3mlx.canvas import Canvas
from d3mlx.errors import ConfigError


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

    @property
    def progress(self) -> float:
        """Committed share, 0 to 1."""
        return 1 - self.masks / (self.end - self.start)


@dataclass(frozen=True)
class View:
    """What one step may touch: the blocks that exist, in order, the last of them ending at `end`."""

    blocks: tuple[Block, ...]

    @property
    def end(self) -> int:
        return self.blocks[-1].end

    @property
    def focus(self) -> Block:
        """The first full block with masks: a step that commits nothing else commits here."""
        return next(block for block in self.blocks if block.full and block.masks)


class Schedule(Protocol):
    def start(self, canvas: Canvas) -> Any: ...

    def step(self, canvas: Canvas, state: Any) -> tuple[View, Any]: ...


def check_block_size(size: int) -> None:
    if size < 1:
        raise ConfigError(f"The block size must be at least 1, not {size}.")


@dataclass(frozen=True)
class WholeCanvas:
    """Every masked position is eligible in every step (Dream's own sampler)."""

    def start(self, canvas: Canvas) -> None:
        return None

    def step(self, canvas: Canvas, state: None) -> tuple[View, None]:
        span = (canvas.prompt_length, len(canvas))
        return View((Block(*span, canvas.masks_in(*span), full=True),)), None


@dataclass(frozen=True)
class SequentialBlocks:
    """One block after another: the next one opens when no mask is left before it (semi-autoregressive decoding)."""

    block_size: int = 32

    def __post_init__(self) -> None:
        check_block_size(self.block_size)

    def start(self, canvas: Canvas) -> None:
        return None

    def step(self, canvas: Canvas, state: None) -> tuple[View, None]:
        blocks = []
        for start, end in canvas.blocks(self.block_size):
            masks = canvas.masks_in(start, end)
            blocks.append(Block(start, end, masks, full=True))
            if masks:
                break
        return View(tuple(blocks)), None


@dataclass(frozen=True)
class MultiBlock:
    """d3LLM's multi-block decoding (d3LLM paper, section on entropy-based multi-block decoding).

    A new block is added once the newest one has `block_add` of its tokens (one block a step); a block becomes full
    once the one before it has `activation` of its tokens. Both are shares in 0..1; with 1 and 1 this is
    `SequentialBlocks`.
    """

    block_size: int = 32
    block_add: float = 0.1
    activation: float = 0.95

    def __post_init__(self) -> None:
        check_block_size(self.block_size)
        for name, share in (("block-add", self.block_add), ("activation", self.activation)):
            if not 0 <= share <= 1:
                raise ConfigError(f"The {name} threshold is a share of a block between 0 and 1, not {share}.")

    def start(self, canvas: Canvas) -> tuple[bool, ...]:
        """State: for each block that exists, whether it is full. The prompt counts as complete before block 0."""
        return (True,)

    def step(self, canvas: Canvas, state: tuple[bool, ...]) -> tuple[View, tuple[bool, ...]]:
        spans = canvas.blocks(self.block_size)
        blocks: list[Block] = []
        for (start, end), was_full in zip(spans, state, strict=False):
            ready = not blocks or blocks[-1].progress >= self.activation
            blocks.append(Block(start, end, canvas.masks_in(start, end), full=was_full or ready))
        last = blocks[-1]
        if len(blocks) < len(spans) and (last.progress >= self.block_add or not last.masks):
            start, end = spans[len(blocks)]
            masks = canvas.masks_in(start, end)
            blocks.append(Block(start, end, masks, full=last.progress >= self.activation))
        return View(tuple(blocks)), tuple(block.full for block in blocks)
