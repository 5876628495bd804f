"""How training sequences are masked, and how that changes over a run (d3LLM's pseudo-trajectory distillation).

A sequence is prompt, response, end token, padding. One segment of it, mostly one block, is partly hidden in the order
in which the teacher committed its positions; everything after the segment is hidden and carries no loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]
Selection = Literal["published", "segment"]

ALWAYS_SHOWN = -1
NEVER_SHOWN = np.iinfo(np.int32).max
"""Orders of positions that the trajectory does not reach: Dream's padding counts as shown, LLaDA's as hidden."""


class Draws(Protocol):
    """The random numbers of one micro-batch, in the order in which they are drawn."""

    def uniform(self, low: float, high: float) -> float: ...

    def integer(self, high: int) -> int:
        """One of 0 .. high, both included."""
        ...

    def uniforms(self, count: int) -> NDArray[np.float32]: ...


class Generator:
    """Draws from numpy's generator; the same key gives the same draws."""

    def __init__(self, *key: int):
        self.rng = np.random.default_rng(key)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def integer(self, high: int) -> int:
        return int(self.rng.integers(0, high + 1))

    def uniforms(self, count: int) -> NDArray[np.float32]:
        return self.rng.random(count, np.float32)


@dataclass(frozen=True)
class Sequence:
    """A padded training sequence.

    ids [L]. prompt: its tokens. full: tokens before the padding. order [L]: the step at which the teacher committed
    each position, None without a trajectory. states: steps of the trajectory.
    """

    ids: Ints
    prompt: int
    full: int
    order: Ints | None = None
    states: int = 0


@dataclass(frozen=True)
class MaskingConfig:
    """How sequences are masked.

    lowest, highest: bounds of the mask ratio; the lower bound rises from the first to the second over the run.
    blockwise: hide one block, or the whole response. random_masks: ignore the trajectory. selection: how a mask ratio
    picks a moment of it (`moment`).
    """

    lowest: float = 0.0
    highest: float = 0.8
    blockwise: bool = True
    random_masks: bool = False
    selection: Selection = "published"


def lowest_ratio(config: MaskingConfig, step: int, steps: int) -> float:
    """The progressive lower bound of the mask ratio; the upper bound stays."""
    progress = min(step / steps, 1.0) if steps > 0 else 0.0
    return config.lowest + progress * (config.highest - config.lowest)


def block_size(sizes: tuple[int, ...], epoch: float) -> int:
    """The size at a fractional epoch: linear between entries, rounded down; the last entry stays."""
    i = min(math.floor(epoch), len(sizes) - 1)
    if i == len(sizes) - 1:
        return sizes[-1]
    return int(sizes[i] + (epoch - i) * (sizes[i + 1] - sizes[i]))


def moment(ratio: float, start: int, end: int, states: int) -> int:
    """Index of the trajectory state for a segment [start, end), counted from the end of the prompt.

    A state is taken after its step, so index k shows k + 1 tokens: one more than the ratio asks for, and a ratio of 1
    still shows one. It also supposes that the blocks of the teacher and of the training line up. That is how the
    published training does it; `selection="segment"` ranks the segment's own positions instead.
    """
    return min(start + int((1 - ratio) * (end - start)), states - 1)


def hidden_by_order(sequence: Sequence, start: int, end: int, ratio: float, selection: Selection) -> Bools:
    """Which positions of the segment the teacher had not committed yet. [end - start]"""
    assert sequence.order is not None
    order = sequence.order[start:end]
    if selection == "published":
        return order > moment(ratio, start - sequence.prompt, end - sequence.prompt, sequence.states)
    hidden: Bools = order == NEVER_SHOWN
    reached = np.flatnonzero(~hidden & (order != ALWAYS_SHOWN))
    shown = len(reached) - round(ratio * len(reached))
    hidden[reached[np.argsort(order[reached], kind="stable")[shown:]]] = True
    return hidden


def segment(sequence: Sequence, config: MaskingConfig, size: int, to_padding: bool, draws: Draws) -> tuple[int, int]:
    """[start, end) of the positions that may carry the loss; empty where there is no response.

    One block of the response, drawn evenly. The one after the last whole block runs to the end of the padding, which is
    how runs of end tokens are learned. to_padding: the padding counts as response when blocks are counted (Dream).
    """
    length = len(sequence.ids)
    response = (length if to_padding else sequence.full) - sequence.prompt
    if response <= 0:
        return length, length
    if not config.blockwise:
        return sequence.prompt, length
    blocks = response // size
    drawn = draws.integer(blocks)
    start = sequence.prompt + drawn * size
    return start, length if drawn == blocks else start + size


@dataclass(frozen=True)
class Noisy:
    """A masked sequence: ids int32 [L] as the model sees them; lost bool [L], True where the loss is taken."""

    ids: Ints
    lost: Bools


def hide(sequence: Sequence, start: int, end: int, hidden: Bools, mask_id: int) -> Noisy:
    """Hide these positions of the segment and everything after it."""
    ids, lost = sequence.ids.copy(), np.zeros(len(sequence.ids), np.bool_)
    lost[start:end] = hidden
    ids[lost] = mask_id
    if start < len(ids):
        ids[end:] = mask_id
    return Noisy(ids, lost)


def noisy_pair(
    sequence: Sequence, config: MaskingConfig, size: int, ratio: float, draws: Draws, mask_id: int, to_padding: bool
) -> tuple[Noisy, Noisy]:
    """The sequence hidden at `ratio`, and its complement: the same segment with the other positions hidden."""
    start, end = segment(sequence, config, size, to_padding, draws)
    if start == end:
        hidden = np.zeros(0, np.bool_)
    elif sequence.order is None or config.random_masks:
        hidden = draws.uniforms(end - start) < np.float32(0.999 * ratio + 0.001)
    else:
        hidden = hidden_by_order(sequence, start, end, ratio, config.selection)
    return hide(sequence, start, end, hidden, mask_id), hide(sequence, start, end, ~hidden, mask_id)
