"""Committed tokens to readable text: the committed prefix, cut at stop texts."""

from __future__ import annotations

from typing import Any

from d3mlx.canvas import Canvas


class TextStream:
    """Turns the committed prefix of an answer into text, piece by piece.

    A token becomes text once everything before it has committed. `done` is set when a stop text has appeared: nothing
    from it on is ever given out. Special tokens, padding ids and the end token give no text.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()):
        self.detokenizer = tokenizer.detokenizer
        self.silent = {*tokenizer.all_special_ids, *tokenizer.eos_token_ids}
        # A model's vocabulary may be padded beyond the tokenizer's; a padding id has no text.
        self.known = max(tokenizer.get_vocab().values())
        self.stop = stop
        self.read = 0
        self.held = ""
        self.done = False

    def push(self, canvas: Canvas) -> str:
        """What became readable since the last call."""
        positions = canvas.answer_positions
        waiting = canvas.masked[positions].nonzero()[0]
        ready = int(waiting[0]) if len(waiting) else len(positions)
        for token in canvas.tokens[positions[self.read : ready]].tolist():
            if token not in self.silent and token <= self.known:
                self.detokenizer.add_token(token)
        self.read = max(self.read, ready)
        return self.release(self.detokenizer.last_segment)

    def finish(self) -> str:
        """The rest: bytes of an unfinished character, and text held back because a stop text might have begun."""
        self.detokenizer.finalize()
        out = self.release(self.detokenizer.last_segment)
        rest, self.held = self.held, ""
        return out if self.done else out + rest

    def release(self, segment: str) -> str:
        """Add `segment`; return what cannot be part of a stop text any more."""
        if self.done:
            return ""
        text = self.held + segment
        starts = [text.find(stop) for stop in self.stop if stop in text]
        if starts:
            self.done, self.held = True, ""
            return text[: min(starts)]
        keep = max((overlap(text, stop) for stop in self.stop), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
