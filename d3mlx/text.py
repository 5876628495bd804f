"""Committed tokens to readable text: the committed prefix, cut at stop texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from d3mlx.canvas import Canvas

UNFINISHED = "\ufffd"
"""What a decoder gives for bytes that are no character; at the end of a text they may become one."""


class TextDecoder:
    """The text of token ids: what the tokenizer decodes, without special tokens and ids that have no token.

    A model's vocabulary may be padded beyond the tokenizer's, and may have gaps. longest: most bytes of a
    token.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.special = {*tokenizer.all_special_ids, *tokenizer.eos_token_ids}
        vocabulary = tokenizer.get_vocab()
        self.known = set(vocabulary.values())
        self.written = [text for text, token in vocabulary.items() if token in self.special]
        self.longest = max(len(text.encode()) for text in vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`."""
        return self.joined([token for token in ids if token in self.known and token not in self.special])

    def decode_raw(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` with special tokens as they are written."""
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
    """Return the decoder of a tokenizer; reading a vocabulary takes long, so it is kept."""
    return TextDecoder(tokenizer)


class TextStream:
    """Turns the committed prefix of an answer into text, piece by piece.

    A token becomes text once everything before it has committed. The pieces together are the decoded answer. `done` is
    set when a stop text has appeared: nothing from it on is ever given out. A stop text may contain special tokens.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()):
        self.decoder = decoder_of(tokenizer)
        self.stop = stop
        self.raw_stops = [text for text in stop if any(special in text for special in self.decoder.written)]
        self.read = 0
        self.text = ""
        self.given = 0
        self.done = False

    def push(self, canvas: Canvas) -> str:
        """Return what became readable since the last call."""
        positions = canvas.answer_positions
        masked = canvas.masked[positions].nonzero()[0]
        ready = int(masked[0]) if len(masked) else len(positions)
        if self.done or ready <= self.read:
            return ""
        self.read = ready
        ids = canvas.tokens[positions[:ready]].tolist()
        self.text = self.decoder.decode(ids)
        end = self.stop_at(ids)
        if end is not None:
            self.done = True
            return self.give(end)
        steady = self.text.rstrip(UNFINISHED)
        return self.give(len(steady) - max((overlap(steady, stop) for stop in self.stop), default=0))

    def finish(self) -> str:
        """Return the rest: bytes of an unfinished character, and text that might have begun a stop text."""
        return "" if self.done else self.give(len(self.text))

    def give(self, end: int) -> str:
        """Return the text up to `end` that was not returned before."""
        piece = self.text[self.given : end]
        self.given = max(self.given, end)
        return piece

    def stop_at(self, ids: Sequence[int]) -> int | None:
        """Return where the first stop text begins in the text of `ids`, None if there is none."""
        begins = [self.text.find(stop) for stop in self.stop]
        if self.raw_stops:
            raw = self.decoder.decode_raw(ids)
            cuts = [raw.find(stop) for stop in self.raw_stops]
            begins += [len(self.decoder.without_special(raw[:cut])) for cut in cuts if cut >= 0]
        return min((begin for begin in begins if begin >= 0), default=None)


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
