"""Texts with holes, and how they become a canvas.

In a text, `[MASK]` is a hole of free length, `[MASK:12]` a hole of 12 tokens, and `\\[MASK]` is the literal text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np

from d3mlx.canvas import Canvas, Hole
from d3mlx.ends import end_ids, turn_end
from d3mlx.errors import PromptError
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.prompt import Prompt, encode
from d3mlx.text import decoder_of

FIRST_SIZE = 16
"""Number of masks of a hole of free length at the beginning. It doubles until the text of the hole ends."""

MOST_HOLE = 1 << 20
"""Largest number of tokens of a hole. No model has such a context."""

MARK = re.compile(r"(\\*)\[MASK(?::([^\]\n]*))?\]")


@dataclass(frozen=True)
class Blank:
    """A hole in a document. size: its number of tokens, None for a free length."""

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is None:
            return
        if isinstance(self.size, bool) or not isinstance(self.size, Integral):
            raise PromptError(f"The size of a hole must be a whole number of tokens, not {self.size!r}.")
        if not 1 <= self.size <= MOST_HOLE:
            raise PromptError(f"A hole must have from 1 to {MOST_HOLE:,} tokens, not {self.size}.")


Piece = str | Sequence[int]
"""A part of a document that is given: a text, or token ids."""


@dataclass(frozen=True)
class Document:
    """A text with holes for a model to fill. It is given to `generate` and its relatives as the prompt.

    parts: given texts or token ids, and holes, in order. prompt: chat messages, text or token ids before the document,
    for example the question that it answers. whole: the text of the result is the whole document; otherwise only the
    text of its holes.
    """

    parts: tuple[Piece | Blank, ...]
    prompt: Prompt | None = None
    whole: bool = True

    def __post_init__(self) -> None:
        parts = [part for part in self.parts if isinstance(part, Blank) or len(part)]
        for before, after in pairwise(parts):
            if isinstance(before, Blank) and isinstance(after, Blank):
                raise PromptError("Two holes are next to each other. Put text between them, or use one hole.")
        if not any(isinstance(part, Blank) for part in parts):
            raise PromptError("The text has no hole. Write [MASK] where text is missing.")

    @property
    def blanks(self) -> list[Blank]:
        """Return the holes."""
        return [part for part in self.parts if isinstance(part, Blank)]

    @classmethod
    def parse(cls, text: str, prompt: Prompt | None = None) -> Document:
        """Return the document of a text with marks such as [MASK]. Raises PromptError for a wrong mark.

        Backslashes are literal, except directly before a mark: there two of them are one, and an odd one makes the mark
        literal text.
        """
        parts: list[Piece | Blank] = []
        written, start = "", 0
        for match in MARK.finditer(text):
            slashes, size = match.groups()
            written += text[start : match.start()] + "\\" * (len(slashes) // 2)
            start = match.end()
            if len(slashes) % 2:
                written += match[0][len(slashes) :]
                continue
            if size is not None and not re.fullmatch("[0-9]{1,7}", size):
                raise PromptError(
                    f"[MASK:{size}] is not a hole. Write a number of tokens, for example [MASK:12], or \\[MASK:{size}] "
                    "for literal text."
                )
            parts += [written, Blank(None if size is None else int(size))]
            written = ""
        return cls((*parts, written + text[start:]), prompt)

    @classmethod
    def between(cls, prompt: Prompt, suffix: str) -> Document:
        """Return the document in which the text between a prompt and a suffix is missing.

        prompt: a text, token ids, or chat messages; then the suffix is the end of the answer.
        """
        before: Any = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if isinstance(before, str) or (before and not isinstance(before[0], dict)):
            return cls((before, Blank(), suffix), whole=False)
        return cls((Blank(), suffix), prompt, whole=False)

    @classmethod
    def of_ids(cls, ids: Sequence[int], mask_id: int) -> Document:
        """Return the document of token ids [L], with a hole wherever ids are `mask_id`."""
        try:
            tokens = np.asarray(ids, np.int32).reshape(len(ids))
        except (TypeError, ValueError, OverflowError):
            raise PromptError("The ids of a document must be a list of token ids.") from None
        masked = tokens == mask_id
        edges = [0, *(np.flatnonzero(np.diff(masked)) + 1).tolist(), len(tokens)]
        spans = [(start, end) for start, end in pairwise(edges) if end > start]
        return cls(tuple(Blank(end - start) if masked[start] else tokens[start:end].tolist() for start, end in spans))


@dataclass(frozen=True)
class Layout:
    """The token ids of a document with holes of definite sizes, from which a canvas is made.

    pieces: ids before, between and after the holes. sizes: the number of masks of each hole. limits: the sizes to which
    the holes may grow. ends: ids that end the text of a hole. given: the text of each piece in the result. healed: for
    each hole, whether the space before it belongs to the hole. start: number of ids before the part that is shown.
    """

    pieces: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    limits: tuple[int, ...]
    ends: tuple[int, ...]
    given: tuple[str, ...]
    healed: tuple[bool, ...]
    start: int

    @property
    def length(self) -> int:
        """Return the number of positions."""
        return sum(map(len, self.pieces)) + sum(self.sizes)

    def canvas(self, mask_id: int, early_stop: bool, block_size: int | None) -> Canvas:
        """Return a canvas with masks in all holes."""
        if len(self.sizes) == 1 and not self.pieces[-1]:
            return Canvas.for_prompt(self.pieces[0], self.sizes[0], mask_id, self.ends, early_stop, block_size)
        tokens, given = list(self.pieces[0]), [True] * len(self.pieces[0])
        for size, piece in zip(self.sizes, self.pieces[1:], strict=True):
            tokens += [mask_id] * size + list(piece)
            given += [False] * size + [True] * len(piece)
        return Canvas(tokens, given, mask_id, self.ends, early_stop)

    def grown(self, canvas: Canvas, closed: Sequence[bool], context: int) -> Layout:
        """Return the layout with every hole twice as large, up to its limit, that is complete and has no end.

        canvas: a canvas of this layout, complete. closed: holes that must not grow, because a stop text ended them.
        context: positions of the model. The same layout is returned if no hole can grow.
        """
        room, sizes = context - self.length, list(self.sizes)
        for i, hole in enumerate(canvas.holes):
            if not closed[i] and not has_end(canvas, hole):
                more = min(sizes[i], self.limits[i] - sizes[i], room)
                sizes[i], room = sizes[i] + more, room - more
        return self if tuple(sizes) == self.sizes else replace(self, sizes=tuple(sizes))


def has_end(canvas: Canvas, hole: Hole) -> bool:
    """Return whether an end token is committed in a hole."""
    last = hole.answer_end - 1
    return not canvas.masked[last] and int(canvas.tokens[last]) in canvas.end_ids


def prompt_layout(model: DiffusionModel, tokenizer: Any, prompt: Prompt, new_tokens: int) -> Layout:
    """Return the layout of a prompt and one hole after it. Raises PromptError."""
    ids = tuple(encode(tokenizer, prompt, model.args.context))
    size = (new_tokens,)
    return Layout((ids, ()), size, size, end_ids(model, tokenizer), ("", ""), (False,), len(ids))


def document_layout(model: DiffusionModel, tokenizer: Any, document: Document, most: int) -> Layout:
    """Return the layout of a document. most: largest size of a hole of free length. Raises PromptError.

    A hole at the end has its largest size from the start, as the answer to a prompt has.
    """
    context = model.args.context
    blanks = document.blanks
    *sections, last = sections_of(document)
    given = tuple(section.text(tokenizer) if document.whole else "" for section in (*sections, last))
    healed = tuple(section.ends_with_space for section in sections)
    read = [each.without_space() if heal else each for each, heal in zip(sections, healed, strict=True)]
    pieces = [section.ids(tokenizer, context) for section in (*read, last.without_newlines())]
    limits = tuple(most if blank.size is None else blank.size for blank in blanks)
    sizes = [limit if blank.size else min(FIRST_SIZE, limit) for blank, limit in zip(blanks, limits, strict=True)]
    if not pieces[-1]:
        sizes[-1] = limits[-1]
    ends = end_ids(model, tokenizer)
    if traits_of(model.family).attention == "block-causal":
        pieces, more_ends = in_fim_order(document, tokenizer, pieces)
        return Layout(tuple(pieces), limits, limits, (*ends, *more_ends), given, healed, len(pieces[0]))
    start: list[int] = []
    if document.prompt is not None:
        start = encode(tokenizer, document.prompt, context)
        if not isinstance(document.prompt, str) and isinstance(document.prompt[0], Mapping) and pieces[-1]:
            pieces[-1] = (*pieces[-1], turn_end(model, tokenizer))
    pieces[0] = (*start, *pieces[0])
    return Layout(tuple(pieces), tuple(sizes), limits, ends, given, healed, len(start))


@dataclass(frozen=True)
class Section:
    """The given pieces before, between or after holes."""

    pieces: tuple[Piece, ...]

    def text(self, tokenizer: Any) -> str:
        """Return the text. Token ids are decoded if there is a tokenizer."""
        return "".join(piece if isinstance(piece, str) else decoded(tokenizer, piece) for piece in self.pieces)

    @property
    def ends_with_space(self) -> bool:
        """Return whether the space at the end belongs to the hole after it.

        In most tokenizers a word and the space before it are one token, so a hole after a space has no good first
        token.
        """
        last = self.pieces[-1] if self.pieces else ""
        return isinstance(last, str) and len(last) > 1 and last.endswith(" ")

    def without_space(self) -> Section:
        """Return the section without its last character."""
        return Section((*self.pieces[:-1], self.pieces[-1][:-1]))

    def without_newlines(self) -> Section:
        """Return the section without newlines at its end. Those at the end of a file do not belong to its text."""
        if not self.pieces or not isinstance(self.pieces[-1], str):
            return self
        last = self.pieces[-1].rstrip("\r\n")
        return Section((*self.pieces[:-1], last) if last else self.pieces[:-1])

    def ids(self, tokenizer: Any, context: int) -> tuple[int, ...]:
        """Return the token ids. Raises PromptError."""
        return tuple(token for piece in self.pieces for token in encode(tokenizer, piece, context))


def sections_of(document: Document) -> list[Section]:
    """Return the sections of a document, one more than it has holes. Empty pieces are left out."""
    sections: list[list[Piece]] = [[]]
    for part in document.parts:
        if isinstance(part, Blank):
            sections.append([])
        elif len(part):
            sections[-1].append(part)
    return [Section(tuple(pieces)) for pieces in sections]


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return decoder_of(tokenizer).decode(ids) if tokenizer is not None else ""


def filled_source(text: str, fills: Sequence[str]) -> str:
    """Return the text that `Document.parse` took, with the texts of its holes. Escaped marks stay escaped."""
    texts = iter(fills)

    def filled(match: re.Match[str]) -> str:
        slashes = len(match[1])
        return match[0] if slashes % 2 else "\\" * (slashes // 2) + next(texts)

    return MARK.sub(filled, text)


FIM = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
)
"""Tokens for fill in the middle, of Qwen's and of StarCoder's tokenizers: prefix, suffix, then the middle follows."""

FIM_ENDS = ("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<file_sep>")
"""Tokens that end the middle."""


def in_fim_order(
    document: Document, tokenizer: Any, pieces: list[tuple[int, ...]]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Return the pieces as a prompt for a model that reads only from left to right, and more ids that end the hole.

    Raises PromptError if the tokenizer has no FIM tokens, or if the document has several holes or a prompt.
    """
    if len(pieces) > 2 or document.prompt is not None:
        raise PromptError(
            "This model attends only to earlier blocks, so it fills one hole of a text, without a question. Use a "
            "LLaDA or Dream model."
        )
    before, after = pieces
    if not after:
        return pieces, []
    vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
    for names in FIM:
        if all(name in vocabulary for name in names):
            prefix, suffix, middle = (vocabulary[name] for name in names)
            ends = [vocabulary[name] for name in FIM_ENDS if name in vocabulary]
            return [(prefix, *before, suffix, *after, middle), ()], ends
    raise PromptError(
        "This model does not see the text after a hole, and its tokenizer has no FIM tokens such as "
        f"{FIM[0][0]}. Use a LLaDA or Dream model."
    )
