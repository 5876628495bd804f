"""Reading from standard input: a whole text, or the messages of a chat with line editing and history."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from importlib import import_module

from d3mlx.errors import PromptError

MOST_BYTES = 1 << 26
"""Largest size of a text. No model has such a context, and a device has no end."""


def read_standard_input() -> bytes:
    """Return the bytes of standard input. Raises PromptError if it is closed or too long."""
    if sys.stdin is None:
        raise PromptError("Standard input is closed. Give the text as an argument or a file.")
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
        if self.interactive:
            # Some builds of Python have no readline. Then the terminal itself edits the line.
            with contextlib.suppress(ImportError):
                readline = import_module("readline")
                for text in earlier:
                    if "\n" not in text:
                        readline.add_history(text)

    def line(self, prompt: str) -> str:
        """Return the next line without its end. Raises EOFError at the end of the input."""
        if self.interactive:
            return input(prompt)
        text = sys.stdin.readline()
        if not text:
            raise EOFError
        return text.rstrip("\n")

    def message(self) -> str:
        """Return the next message. Raises EOFError at the end of the input, and KeyboardInterrupt for Ctrl-C.

        A line that ends with a backslash continues on the next line. A message that begins with three quotation marks
        ends with three quotation marks.
        """
        text = self.line(PROMPT)
        if text.lstrip().startswith(FENCE):
            text = text.lstrip().removeprefix(FENCE)
            while not text.rstrip().endswith(FENCE):
                text += "\n" + self.line(MORE)
            return text.rstrip().removesuffix(FENCE)
        while text.endswith("\\"):
            text = text[:-1] + "\n" + self.line(MORE)
        return text
