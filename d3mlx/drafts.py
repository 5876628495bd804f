"""Tokens that may still change: a decoder that edits writes drafts, and commits them when their block is final.

Until then their positions count as masked, so the block stays open for schedule and cache, and text that streams out
never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from d3mlx.canvas import Bools, Canvas, Ints
from d3mlx.kernels.accept_blocks import Accepted, Rule, accept_blocks
from d3mlx.kernels.token_stats import TokenStats


@dataclass(frozen=True)
class Editing:
    """How drafts change (LLaDA2.1 report, joint threshold decoding).

    threshold: a draft is replaced by another token with a probability above this. passes: most forwards of a block
    after its last mask is filled; a forward that changes nothing ends it before.
    """

    threshold: float
    passes: int

    @property
    def rule(self) -> Rule:
        """Return the record that decides which drafts are replaced."""
        return Rule("confidence", self.threshold, inclusive=False, progress=False)


class Written(NamedTuple):
    """The drafts that a step wrote: positions, ascending, and the tokens before and after, each int32 [E]."""

    positions: Ints
    before: Ints
    after: Ints


NONE_WRITTEN = Written(*(np.empty(0, np.int32) for _ in range(3)))


class Drafts:
    """The drafts of one request. drafted: bool [L], True where a position of the open block has a draft."""

    def __init__(self, canvas: Canvas, editing: Editing):
        self.canvas, self.editing = canvas, editing
        self.drafted: Bools = np.zeros(len(canvas), bool)
        self.passes = 0
        self.masks = 0

    def eligible(self, positions: Ints) -> Ints:
        """Return the undecided positions in the order of `accept`: first those without a draft, then the others."""
        drafted = self.drafted[positions]
        self.masks = int(np.count_nonzero(~drafted))
        return np.concatenate([positions[~drafted], positions[drafted]])

    def accept(self, stats: TokenStats, positions: Ints, rule: Rule | None, focus: tuple[int, int]) -> Any:
        """Apply `rule` to positions without a draft and that of the editing to the others. Return int32 [3 N], packed.

        stats: those of the positions, each [N]. rule: None if every position has a draft.
        """
        parts = []
        for which, used in ((slice(self.masks), rule), (slice(self.masks, None), self.editing.rule)):
            if used is not None and len(positions[which]):
                part = TokenStats(*(column[which] for column in stats))
                parts.append(accept_blocks(part, positions[which], focus, used))
        if len(parts) == 1:
            return parts[0]
        xp: Any = mx if isinstance(parts[0], mx.array) else np
        return xp.concatenate([part.reshape(3, -1) for part in parts], axis=1).reshape(-1)

    def write(self, positions: Ints, accepted: Accepted) -> Written:
        """Write the accepted tokens as drafts. Return those that are new or changed."""
        before = self.canvas.tokens[positions]
        changed = np.flatnonzero((accepted.tokens >= 0) & (accepted.tokens != before))
        written = Written(positions[changed], before[changed], accepted.tokens[changed])
        self.canvas.tokens[written.positions] = written.after
        self.drafted[written.positions] = True
        return written

    def final(self, positions: Ints, written: Written) -> bool:
        """Return whether the block with these undecided positions will not change any more after this step."""
        if not self.drafted[positions].all():
            return False
        self.passes += self.masks == 0
        if self.passes < self.editing.passes and (self.masks or len(written.positions)):
            return False
        self.passes = 0
        return True
