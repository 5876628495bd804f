"""Conversion of the committed prefix of an answer to readable text, cut at stop texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from d3mlx.canvas import Canvas, Hole

UNFINISHED = "\ufffd"
"""The replacement for bytes that do not form a character. At the end of a text, more bytes may complete one."""


def is_unicode(value: Any) -> bool:
    """Return whether all text in a JSON value is valid Unicode. A lone surrogate is not."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


class TextDecoder:
    """A tokenizer as a decoder of token ids that may lack tokens. longest: bytes of the longest token.

    A model's vocabulary may be padded beyond the tokenizer's and may have gaps. Ids without a token have no text.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.special = {*tokenizer.all_special_ids, *tokenizer.eos_token_ids}
        vocabulary = tokenizer.get_vocab()
        self.known = set(vocabulary.values())
        self.written = [text for text, token in vocabulary.items() if token in self.special]
        self.longest = max(len(text.encode()) for text in vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        return self.joined([token for token in ids if token in self.known and token not in self.special])

    def decode_raw(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` with special tokens written out."""
        return self.joined([token for token in ids if token in self.known])

    def without_special(self, raw: str) -> str:
        """Return a raw text without its special tokens."""
        for text in self.written:
            raw = raw.replace(text, "")
        return raw

    def joined(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)


@lru_cache(maxsize=4)
def decoder_of(tokenizer: Any) -> TextDecoder:
    """Return the decoder of a tokenizer. It is cached because reading a vocabulary is slow."""
    return TextDecoder(tokenizer)


class TextStream:
    """A converter of the committed prefix of a hole to text, piece by piece.

    A token becomes text when all tokens before it in the hole have committed. The pieces together are the decoded text
    of the hole. A stop text that appears, `stopped_by`, and later text are not returned. A stop text may contain
    special tokens.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()):
        self.decoder = decoder_of(tokenizer)
        self.stop = stop
        self.raw_stops = [text for text in stop if any(special in text for special in self.decoder.written)]
        self.read = 0
        self.text = ""
        self.given = 0
        self.stopped_by: str | None = None

    @property
    def done(self) -> bool:
        """Return whether a stop text has appeared."""
        return self.stopped_by is not None

    @property
    def readable(self) -> str:
        """Return all text that was returned so far."""
        return self.text[: self.given]

    def push(self, canvas: Canvas, hole: Hole) -> str:
        """Return the text that became readable since the last call, of this hole of the canvas.

        When the hole is complete, this includes text that was held back: bytes of an incomplete character, and a
        possible beginning of a stop text.
        """
        masked = canvas.masked[hole.start : hole.answer_end].nonzero()[0]
        complete = not len(masked)
        ready = hole.answer_end - hole.start if complete else int(masked[0])
        if self.done or (ready <= self.read and not complete):
            return ""
        self.read = ready
        ids = canvas.tokens[hole.start : hole.start + ready].tolist()
        self.text = self.decoder.decode(ids)
        first = self.stop_at(ids)
        if first is not None:
            end, self.stopped_by = first
            return self.give(end)
        if complete:
            return self.give(len(self.text))
        steady = self.text.rstrip(UNFINISHED)
        return self.give(len(steady) - max((overlap(steady, stop) for stop in self.stop), default=0))

    def give(self, end: int) -> str:
        """Return the text up to `end` that was not returned yet."""
        piece = self.text[self.given : end]
        self.given = max(self.given, end)
        return piece

    def stop_at(self, ids: Sequence[int]) -> tuple[int, str] | None:
        """Return where the first stop text begins in the text of `ids`, and this stop text. None if there is none."""
        begins = [(self.text.find(stop), stop) for stop in self.stop]
        if self.raw_stops:
            raw = self.decoder.decode_raw(ids)
            cuts = [(raw.find(stop), stop) for stop in self.raw_stops]
            begins += [(len(self.decoder.without_special(raw[:cut])), stop) for cut, stop in cuts if cut >= 0]
        return min(((begin, stop) for begin, stop in begins if begin >= 0), default=None)


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
