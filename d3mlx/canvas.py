"""The tokens of one request: which positions were given and which are still masked. Independent of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from d3mlx.errors import PromptError

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass
class Hole:
    """Consecutive positions [start, end) that the model fills.

    limit: end of the longest answer, at most `end`. answer_end: the position after the first end token in the hole;
    `limit` if there is none.
    """

    start: int
    end: int
    limit: int
    answer_end: int


class Canvas:
    """Tokens at positions 0, 1, ...: some were given, the others start as mask tokens and are decoded.

    tokens: int32 [L]. given: bool [L], True where the token was given; a given token never changes, whatever its id.
    masked: bool [L], True where a position still has no token. filled: bool [L], True where an earlier end token filled
    the position. active_length: forwards use only the positions below it; it never shrinks. block_size: size of the
    blocks of a block-causal model, which begin at multiples of it; None for other models.
    """

    def __init__(
        self,
        tokens: Sequence[int] | Ints,
        given: Sequence[bool] | Bools,
        mask_id: int,
        end_ids: tuple[int, ...] = (),
        early_stop: bool = True,
        block_size: int | None = None,
        beyond: int = 0,
    ):
        """Start with the given tokens, and masks at all other positions.

        tokens: ids [L]; those that are not given are ignored. given: bool [L]. end_ids: the tokens that end an answer.
        early_stop: do not decode the positions of a hole after its first end token; they become `end_ids[0]`. A model
        with a `block_size` was trained on blocks of masks, so it sees these masks until the answer is complete.
        beyond: number of last positions that complete a block and do not belong to the answer.
        Raises PromptError if every position is given, or if the numbers of flags and tokens differ.
        """
        if len(tokens) != len(given):
            raise PromptError(f"The canvas has {len(tokens)} tokens but {len(given)} flags. Give one flag per token.")
        self.given: Bools = np.asarray(given, dtype=bool)
        self.masked: Bools = ~self.given
        if not self.masked.any():
            raise PromptError("The canvas has no position to decode. Leave at least one position without a token.")
        self.tokens: Ints = np.where(self.given, np.asarray(tokens, dtype=np.int32), np.int32(mask_id))
        self.filled: Bools = np.zeros(len(self.tokens), dtype=bool)
        self.mask_id, self.block_size = mask_id, block_size
        # A checkpoint may list its mask token as an end token, but a masked position ends nothing.
        self.end_ids = tuple(token for token in end_ids if token != mask_id)
        self.early_stop = early_stop and bool(self.end_ids)
        edges = np.flatnonzero(np.diff(self.masked, prepend=False, append=False)).tolist()
        self.holes = [Hole(start, end, end, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        self.holes[-1].limit = self.holes[-1].answer_end = self.holes[-1].end - beyond
        # A prefix is active from the start. So are tokens after a hole, together with the masks before them.
        after = np.flatnonzero(self.given[self.prompt_length :])
        self.active_length = self.prompt_length + (int(after[-1]) + 1 if len(after) else 0)

    @classmethod
    def for_prompt(
        cls,
        prompt: Sequence[int],
        new_tokens: int,
        mask_id: int,
        end_ids: tuple[int, ...] = (),
        early_stop: bool = True,
        block_size: int | None = None,
    ) -> Canvas:
        """Return a canvas of a prompt (ids [P]) followed by `new_tokens` masks. Raises PromptError without masks.

        block_size: size of the blocks of a block-causal model. Further masks then complete the last block.
        """
        if new_tokens < 1:
            raise PromptError(f"The number of new tokens must be at least 1, not {new_tokens}.")
        beyond = -(len(prompt) + new_tokens) % (block_size or 1)
        given = np.arange(len(prompt) + new_tokens + beyond) < len(prompt)
        tokens = [*prompt, *[mask_id] * (new_tokens + beyond)]
        return cls(tokens, given, mask_id, end_ids, early_stop, block_size, beyond)

    def without_given(self) -> Canvas:
        """Return this canvas with the mask token at every given position, for classifier-free guidance."""
        return Canvas(np.full(len(self), self.mask_id), self.given, self.mask_id, self.end_ids, self.early_stop)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def prompt_length(self) -> int:
        """Return the number of given positions before the first hole."""
        return self.holes[0].start

    @property
    def new_tokens(self) -> int:
        """Return the largest number of tokens of the answer."""
        return sum(hole.limit - hole.start for hole in self.holes)

    @property
    def done(self) -> bool:
        """Return whether every position has a token."""
        return not self.masked.any()

    @property
    def answer_positions(self) -> Ints:
        """Return the ascending positions of the answer, int32 [A]: all holes up to and including their end tokens."""
        return np.concatenate([np.arange(hole.start, hole.answer_end, dtype=np.int32) for hole in self.holes])

    @property
    def answer(self) -> Ints:
        """Return the tokens at `answer_positions`, int32 [A], masks included."""
        return self.tokens[self.answer_positions]

    @property
    def answered(self) -> int:
        """Return the number of tokens committed so far, in each hole up to and including its first end token."""
        left = sum(int(np.count_nonzero(self.masked[hole.start : hole.answer_end])) for hole in self.holes)
        return sum(hole.answer_end - hole.start for hole in self.holes) - left

    def masked_before(self, end: int) -> Ints:
        """Return the ascending masked positions below `end`, int32 [N]."""
        return np.flatnonzero(self.masked[:end]).astype(np.int32)

    def extend(self, end: int) -> None:
        """Extend the active part of the canvas to `end`. It never shrinks."""
        self.active_length = max(self.active_length, end)

    def commit(self, positions: Ints, tokens: Ints) -> Ints:
        """Give masked positions int32 [C] their final tokens int32 [C]; return the positions that an end token filled.

        Commit and fill are one operation, so a rule never sees a mask that needs no token.
        """
        self.tokens[positions] = tokens
        self.masked[positions] = False
        changed: list[Ints] = []
        for position, token in zip(positions.tolist(), tokens.tolist(), strict=True):
            if token in self.end_ids:
                changed += self.end_at(position)
        if self.block_size is not None:
            for hole in self.holes:
                needed = hole.answer_end if self.early_stop else hole.limit
                if self.masked[needed : hole.end].any() and not self.masked[hole.start : needed].any():
                    changed.append(self.fill(needed, hole.end))
        return np.unique(np.concatenate(changed)) if changed else np.empty(0, np.int32)

    def end_at(self, position: int) -> list[Ints]:
        """End the answer of a hole after an end token at `position`. Return the positions that this filled."""
        filled = []
        for hole in self.holes:
            if hole.start <= position < hole.answer_end - 1:
                before, hole.answer_end = hole.answer_end, position + 1
                if self.early_stop and self.block_size is None:
                    filled.append(self.fill(position + 1, before))
        return filled

    def fill(self, start: int, end: int) -> Ints:
        """Give the positions [start, end) the end token; return the positions whose tokens changed, int32."""
        token = self.end_ids[0] if self.end_ids else self.mask_id
        changed = np.flatnonzero(self.tokens[start:end] != token) + start
        self.tokens[start:end] = token
        self.masked[start:end] = False
        self.filled[start:end] = True
        return changed.astype(np.int32)
