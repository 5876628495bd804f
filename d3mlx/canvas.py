"""The state of one request: prompt and masked positions, nothing of models or logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from d3mlx.errors import PromptError

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


class Canvas:
    """A prompt followed by `new_tokens` positions that start as mask tokens.

    Positions are absolute (0 is the first prompt token). `end_ids` are the tokens that end an answer. With
    `early_stop`, positions after the first of them are not decoded: they become `end_ids[0]`. Positions from `reach` on
    take no part yet: nothing computes or attends to them. A decode makes it grow.
    """

    def __init__(
        self,
        prompt: list[int],
        new_tokens: int,
        mask_id: int,
        end_ids: tuple[int, ...] = (),
        early_stop: bool = True,
    ):
        if new_tokens < 1:
            raise PromptError(f"At least one new token must be asked for, not {new_tokens}.")
        if mask_id in prompt:
            raise PromptError(
                f"The prompt holds the mask token (id {mask_id}) at position {prompt.index(mask_id)}; filling masks "
                "inside a prompt is not supported, so remove it."
            )
        self.tokens: Ints = np.array([*prompt, *[mask_id] * new_tokens], dtype=np.int32)
        self.prompt_length = self.reach = len(prompt)
        self.mask_id = mask_id
        # A checkpoint may name its mask token as an end, which a masked position is not.
        self.end_ids = tuple(token for token in end_ids if token != mask_id)
        self.early_stop = early_stop and bool(self.end_ids)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def masked(self) -> Bools:
        """[L], True where a position still awaits its token."""
        return self.tokens == self.mask_id

    @property
    def done(self) -> bool:
        return not bool(self.masked.any())

    @property
    def answer(self) -> Ints:
        """The generated part up to and including the first end token; masks included."""
        generated = self.tokens[self.prompt_length :]
        ends = np.flatnonzero(np.isin(generated, self.end_ids))
        return generated[: int(ends[0]) + 1] if len(ends) else generated

    @property
    def answered(self) -> int:
        """Tokens committed so far, up to and including the first end token."""
        return int((self.answer != self.mask_id).sum())

    def masked_before(self, end: int) -> Ints:
        """Ascending positions below `end` that are masked."""
        return np.flatnonzero(self.masked[:end]).astype(np.int32)

    def masks_in(self, start: int, end: int) -> int:
        return int(self.masked[start:end].sum())

    def grow(self, end: int) -> None:
        """Let the positions below `end` take part; what took part does so for good."""
        self.reach = max(self.reach, end)

    def commit(self, positions: Ints, tokens: Ints) -> None:
        """Give masked positions their final tokens."""
        self.tokens[positions] = tokens

    def settle(self) -> Ints:
        """Fill everything after the first end token; return the positions that changed.

        Runs right after each commit, so no rule ever sees a mask that the end of the answer has already decided.
        """
        if not self.early_stop:
            return np.empty(0, np.int32)
        after = self.prompt_length + len(self.answer)
        changed = after + np.flatnonzero(self.tokens[after:] != self.end_ids[0])
        self.tokens[changed] = self.end_ids[0]
        return changed.astype(np.int32)

    def blocks(self, size: int) -> list[tuple[int, int]]:
        """[start, end) of every block of the generated part; the last one may be shorter."""
        return [(s, min(s + size, len(self))) for s in range(self.prompt_length, len(self), size)]
