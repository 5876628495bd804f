"""The consoles that tables, bars and the live view are printed on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from d3mlx.terminal import printable

PIPED_WIDTH = 120
"""Width of a table in characters, where the output is not a terminal."""


class Screen(Console):
    """A console that never gives control characters of a text to a terminal, and shows `:name:` as it is."""

    def __init__(self, **settings: Any):
        super().__init__(highlight=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable. On a terminal, their texts are printable."""
        for segment in super().render(renderable, options):
            if segment.control or not self.is_terminal:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def printer(stderr: bool = False) -> Screen:
    """Return a console on standard output or error, at least `PIPED_WIDTH` wide if that is not a terminal."""
    console = Screen(stderr=stderr)
    if console.is_terminal:
        return console
    return Screen(stderr=stderr, width=max(console.width, PIPED_WIDTH))
