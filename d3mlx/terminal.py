"""Text for a terminal. Texts of a model or of a checkpoint may contain control characters, which act on a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import TextIO

JOINERS = "\u200c\u200d"
"""Invisible characters that only change how their neighbors look."""

CONTROL = ("Cc", "Cf", "Cs")
"""Unicode categories: control and format characters, and halves of surrogate pairs."""


def printable(text: str) -> str:
    """Return text without control characters, which could move the cursor. Only the newline stays."""
    if text.isprintable():
        return text
    flat = text.replace("\t", "    ").replace("\r\n", "\n")
    return "".join("�" if c not in "\n" + JOINERS and unicodedata.category(c) in CONTROL else c for c in flat)


def shown_on(stream: TextIO, text: str) -> str:
    """Return a text as `stream` shows it: printable on a terminal, unchanged in a pipe or file."""
    return printable(text) if stream.isatty() else text


def write(stream: TextIO, text: str) -> None:
    """Write a text to standard output or error, as `shown_on` returns it."""
    stream.write(shown_on(stream, text))


def write_json(stream: TextIO, text: str) -> None:
    """Write JSON. On a terminal, control characters in its texts are written as escapes of JSON."""
    if stream.isatty():
        text = re.sub(r"[^\n\x20-\x7e]", lambda match: escaped(match[0]), text)
    stream.write(text)


def escaped(character: str) -> str:
    """Return a control character as an escape of JSON, and other characters unchanged."""
    if unicodedata.category(character) not in CONTROL:
        return character
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
