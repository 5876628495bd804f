"""Reading from standard input: a whole text, or the messages of a chat with line editing and history."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from d3mlx.errors import PromptError

MOST_BYTES = 1 << 26
"""Largest size of a text. No model has such a context, and a device has no end."""


def read_standard_input() -> bytes:
    """Return the bytes of standard input. Raises PromptError if it is closed or too long."""
    if sys.stdin is None:
        raise PromptError("Standard input is closed. Open it, or give the text in another way.")
    content = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise PromptError(f"Standard input has more than {MOST_BYTES:,} bytes. Shorten the text.")
    return content


FENCE = '"""'
"""Begins and ends a message of several lines."""

PROMPT, MORE = ">> ", ".. "


class LineReader:
    """Reader of messages from standard input. In a terminal, the arrow keys edit the line and recall earlier ones."""

    def __init__(self, earlier: Iterable[str] = ()):
        """Begin to read. earlier: messages that the history has from the start."""
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self.editor: Any = None
        if self.interactive:
            # Some builds of Python have no readline. Then the terminal itself edits the line.
            with contextlib.suppress(ImportError):
                self.editor = import_module("readline")
                # A whole message is an entry of the history, and a pasted text is one message.
                self.editor.set_auto_history(False)
                self.editor.parse_and_bind("set enable-bracketed-paste on")
                for text in earlier:
                    self.remember(text)

    def remember(self, text: str) -> None:
        """Add a message to the history. A text with a NUL character cannot be in it."""
        if self.editor is not None and text and "\0" not in text:
            self.editor.add_history(text)

    def line(self, prompt: str) -> str:
        """Return the next line without its end. Raises EOFError at the end of the input."""
        if self.interactive:
            return input(prompt)
        text = sys.stdin.readline(MOST_BYTES + 1)
        if not text:
            raise EOFError
        if len(text) > MOST_BYTES:
            raise PromptError(f"A message has more than {MOST_BYTES:,} characters. Shorten it.")
        return text.rstrip("\n")

    def message(self) -> tuple[str, bool]:
        """Return the next message, and whether it can be a command because it is one line without quotation marks.

        A line that ends with a backslash continues on the next line. A message that begins with three quotation marks
        ends with three quotation marks; a newline next to them does not belong to it. The end of the input also ends a
        message. Raises EOFError if there is no message, and KeyboardInterrupt for Ctrl-C.
        """
        text = self.line(PROMPT)
        fenced, single = text.lstrip().startswith(FENCE), not text.endswith("\\")
        with contextlib.suppress(EOFError):
            if fenced:
                text = text.lstrip().removeprefix(FENCE)
                while not text.rstrip().endswith(FENCE):
                    text += "\n" + self.line(MORE)
                text = text.rstrip().removesuffix(FENCE)
            while not fenced and text.endswith("\\"):
                text = text[:-1]
                text += "\n" + self.line(MORE)
        if fenced:
            text = text.removeprefix("\n").removesuffix("\n")
        self.remember(text)
        return text, single and not fenced
