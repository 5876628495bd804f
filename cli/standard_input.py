"""Reading of a text from standard input."""

from __future__ import annotations

import sys

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
