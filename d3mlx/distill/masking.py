"""Masks of training sequences, and their change over a run (d3LLM's pseudo-trajectory distillation).

A sequence consists of prompt, response, end token and padding. One segment, usually one block, is hidden in part. The
order in which the teacher committed its positions decides which part. All positions after the segment are hidden
without a loss.
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
"""Orders of positions outside the trajectory. Padding counts as shown for Dream and as hidden for LLaDA."""


class Draws(Protocol):
    """The random numbers of one micro-batch, in the order in which they are drawn."""

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        ...

    def integer(self, high: int) -> int:
        """Return a whole number from 0 to `high`, both included."""
        ...

    def uniforms(self, count: int) -> NDArray[np.float32]:
        """Return numbers in [0, 1): float32 [count]."""
        ...


class Generator:
    """Draws from numpy's generator. The same key gives the same draws."""

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

    ids: int32 [L]. prompt: number of its tokens. full: number of tokens before the padding. order: int32 [L], the step
    in which the teacher committed each position; None without a trajectory. states: number of steps of the trajectory.
    """

    ids: Ints
    prompt: int
    full: int
    order: Ints | None = None
    states: int = 0


@dataclass(frozen=True)
class MaskingConfig:
    """Settings of the masks.

    lowest, highest: bounds of the mask ratio. The lower bound rises from `lowest` to `highest` over the run. blockwise:
    hide one block instead of the full response. random_masks: ignore the trajectory. selection: how a mask ratio
    selects a state of the trajectory (see `moment`).
    """

    lowest: float = 0.0
    highest: float = 0.8
    blockwise: bool = True
    random_masks: bool = False
    selection: Selection = "published"


def lowest_ratio(config: MaskingConfig, step: int, steps: int) -> float:
    """Return the lower bound of the mask ratio at a step. The upper bound is constant."""
    progress = min(step / steps, 1.0) if steps > 0 else 0.0
    return config.lowest + progress * (config.highest - config.lowest)


def block_size(sizes: tuple[int, ...], epoch: float) -> int:
    """Return the block size at a fractional epoch: linear between entries, rounded down; the last one at the end."""
    i = min(math.floor(epoch), len(sizes) - 1)
    if i == len(sizes) - 1:
        return sizes[-1]
    return int(sizes[i] + (epoch - i) * (sizes[i + 1] - sizes[i]))


def moment(ratio: float, start: int, end: int, states: int) -> int:
    """Return the index of the trajectory state for a segment [start, end), which counts from the end of the prompt.

    A state is stored after its step, so state k shows k + 1 tokens: one more than the ratio specifies. A ratio of 1
    shows one token. The index also assumes that teacher blocks and training blocks are aligned. The published training
    does the same. With `selection="segment"` only the order within the segment counts instead.
    """
    return min(start + int((1 - ratio) * (end - start)), states - 1)


def hidden_by_order(sequence: Sequence, start: int, end: int, ratio: float, selection: Selection) -> Bools:
    """Return whether each position of the segment is hidden: the teacher commits it later. bool [end - start]"""
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
    """Draw a block of the response evenly and return the [start, end) of positions that may have a loss.

    After the last complete block, the segment extends to the end of the padding, so that the model learns runs of end
    tokens. Without a response the segment is empty. to_padding: padding counts as response (Dream).
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
    """A masked sequence. ids: int32 [L], with mask tokens. lost: bool [L], True for positions with a loss."""

    ids: Ints
    lost: Bools


def hide(sequence: Sequence, start: int, end: int, hidden: Bools, mask_id: int) -> Noisy:
    """Hide all positions after the segment, and in it those of `hidden`, bool [end - start]. Return the result."""
    ids, lost = sequence.ids.copy(), np.zeros(len(sequence.ids), np.bool_)
    lost[start:end] = hidden
    ids[lost] = mask_id
    if start < len(ids):
        ids[end:] = mask_id
    return Noisy(ids, lost)


def noisy_pair(
    sequence: Sequence, config: MaskingConfig, size: int, ratio: float, draws: Draws, mask_id: int, to_padding: bool
) -> tuple[Noisy, Noisy]:
    """Return the sequence with hidden positions at `ratio`, and its complement with the others hidden."""
    start, end = segment(sequence, config, size, to_padding, draws)
    if start == end:
        hidden = np.zeros(0, np.bool_)
    elif sequence.order is None or config.random_masks:
        hidden = draws.uniforms(end - start) < np.float32(0.999 * ratio + 0.001)
    else:
        hidden = hidden_by_order(sequence, start, end, ratio, config.selection)
    return hide(sequence, start, end, hidden, mask_id), hide(sequence, start, end, ~hidden, mask_id)
