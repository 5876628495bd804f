"""Where tables go."""

from __future__ import annotations

from rich.console import Console

PIPED_WIDTH = 120
"""Columns of a table that no terminal limits."""


def printer(stderr: bool = False) -> Console:
    """Standard output or error, wide enough for our tables where it is no terminal."""
    console = Console(stderr=stderr, highlight=False)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, highlight=False, width=max(console.width, PIPED_WIDTH))
