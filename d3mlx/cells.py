"""How a canvas looks after each step: committed text with its entropies, given text, and masks.

The live view, the server and replays show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3mlx.decoding.schedule import Block
from d3mlx.generation import Generation
from d3mlx.request import Step

GIVEN_STEP = -1_000
"""The step of a given token."""


@dataclass
class Cell:
    """A position with a token. step: the step that committed it. given: the model did not commit it."""

    token: int
    entropy: float
    step: int
    given: bool = False


@dataclass(frozen=True)
class Group:
    """Consecutive positions that are shown together.

    text: None if bytes of a character are missing, or if it is a mask. cell: the newest cell, None for a mask. active:
    for a mask, whether it may commit now.
    """

    text: str | None
    cell: Cell | None
    active: bool = False


class Pieces:
    """Text of consecutive tokens. A character made of several tokens appears when all of them are committed."""

    LONGEST_CHARACTER = 4

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.silent = {*tokenizer.all_special_ids, *tokenizer.eos_token_ids}
        self.known: dict[tuple[int, ...], str] = {}

    def text(self, tokens: tuple[int, ...]) -> str:
        """Return the decoded text of tokens."""
        if tokens not in self.known:
            self.known[tokens] = self.tokenizer.decode(list(tokens))
        return self.known[tokens]

    def split(self, cells: list[Cell]) -> Iterator[tuple[str | None, Cell]]:
        """Yield the text and the newest cell of each group of characters. The text is None if bytes are missing."""
        start = 0
        while start < len(cells):
            for end in range(start + 1, min(start + self.LONGEST_CHARACTER, len(cells)) + 1):
                group = cells[start:end]
                text = self.text(tuple(cell.token for cell in group if cell.token not in self.silent))
                if not text.endswith("�"):
                    break
            else:
                incomplete = end == len(cells)
                end, group = (end, group) if incomplete else (start + 1, cells[start : start + 1])
                text = None if incomplete else "�"  # type: ignore[assignment]
            yield text, max(group, key=lambda cell: cell.step)
            start = end


class Cells:
    """The canvas of a generation as cells, from the first position that is shown.

    latest: the last Step. reach: end of the active part of the canvas. visible: end of the part that is shown.
    """

    def __init__(self, generation: Generation, tokenizer: Any):
        self.generation, self.pieces = generation, Pieces(tokenizer)
        self.first = generation.layout.start
        self.latest: Step | None = None
        self.open()

    def open(self) -> None:
        """Begin with the canvas of the generation's current round."""
        self.canvas = canvas = self.generation.canvas
        self.cells: list[Cell | None] = [
            Cell(token, 0.0, GIVEN_STEP, given=True) if given else None
            for token, given in zip(canvas.tokens.tolist(), canvas.given.tolist(), strict=True)
        ]
        self.reach = self.visible = canvas.active_length

    def take(self, step: Step) -> None:
        """Update the cells with the tokens of a step, the end of the answer and the active length of the canvas."""
        self.latest = step
        if self.generation.canvas is not self.canvas:
            self.open()
            return
        drafts = step.written.positions
        entropies = step.guess_entropies[np.searchsorted(step.eligible, drafts)]
        for position, token, entropy in zip(drafts, step.written.after, entropies, strict=True):
            self.cells[int(position)] = Cell(int(token), float(entropy), step.index)
        for position, token, entropy in zip(step.positions, step.tokens, step.entropies, strict=True):
            known = self.cells[int(position)]
            # A draft that commits was shown in the step that wrote it.
            if known is None or known.token != token:
                self.cells[int(position)] = Cell(int(token), float(entropy), step.index)
        for position in step.filled.tolist():
            self.cells[position] = Cell(int(self.canvas.tokens[position]), 0.0, step.index)
        self.reach = self.canvas.active_length
        last = self.canvas.holes[-1]
        self.visible = min(self.reach, last.answer_end) if last.end == len(self.canvas) else self.reach

    def masks(self, block: Block) -> int:
        """Return the number of masks that a block has after the last Step."""
        return sum(cell is None for cell in self.cells[block.start : min(block.end, self.visible)])

    def groups(self) -> Iterator[Group]:
        """Yield the groups of the shown part, in order."""
        end = self.latest.blocks[-1].end if self.latest else 0
        run: list[Cell] = []
        for position, cell in enumerate(self.cells[self.first : self.visible], self.first):
            if cell is not None:
                run.append(cell)
                continue
            yield from (Group(text, newest) for text, newest in self.pieces.split(run))
            yield Group(None, None, active=position < end)
            run = []
        yield from (Group(text, newest) for text, newest in self.pieces.split(run))
