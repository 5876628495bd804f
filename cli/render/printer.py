"""The console that tables are printed on."""

from __future__ import annotations

from rich.console import Console

PIPED_WIDTH = 120
"""Width of a table in characters, where the output is not a terminal."""


def printer(stderr: bool = False) -> Console:
    """Return a console on standard output or error, at least `PIPED_WIDTH` wide if that is not a terminal."""
    console = Console(stderr=stderr, highlight=False)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, highlight=False, width=max(console.width, PIPED_WIDTH))
