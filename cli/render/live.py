"""The live view: a canvas of masked tokens resolving in the terminal.

It is a consumer of Steps. A mask is a gray cell. A new token is bright and fades over the next steps; its color shows
how confident the model was. A bar shows the state of each block.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.text import Text

from d3mlx import Generation, Step
from d3mlx.cells import Cell, Cells
from d3mlx.cli.render.consumers import Report, forwards_text
from d3mlx.cli.render.printer import Screen
from d3mlx.terminal import printable

COOLING = 4
"""Number of steps until a committed token looks like normal text."""

REFRESH_SECONDS = 1 / 15
CHROME_LINES = 7
"""Lines of a frame outside the canvas: two rules, an empty line, the bar, the figures, and two for the cursor."""

ECHO_COLUMNS = 2
"""Columns that stay empty for the ^C of a terminal. If it wrapped, a part of the old frame would remain."""

SIDE_COLUMNS = 4
"""Columns for the edges and the padding of the panel."""

MOST_BLOCKS = 24
"""Length of the bar, in blocks: the newest active ones and the next waiting ones."""

GIVEN, FILLED = Style(color="grey58"), Style(color="green4", bold=True)
"""Styles of given text while the holes resolve, and of the text of holes after that."""

CONFIDENT, UNCERTAIN = (64, 196, 160), (232, 96, 200)
MIDDLE = (236, 180, 72)


@dataclass(frozen=True)
class Glyphs:
    """Characters of the view: masks of active and of waiting blocks, an incomplete character, states of a block."""

    mask: str
    waiting: str
    broken: str
    queued: str
    active: str
    full: str
    complete: str


UNICODE = Glyphs(mask="░", waiting="·", broken="·", queued="·", active="▒", full="▓", complete="█")
ASCII = Glyphs(mask="_", waiting=".", broken="?", queued=".", active="-", full="=", complete="#")


def entropy_color(entropy: float) -> str:
    """Return the color of an entropy in nats: green at 0, amber at 1, magenta at 2 and above."""
    share = min(max(entropy, 0.0) / 2, 1.0)
    low, high, t = (CONFIDENT, MIDDLE, share * 2) if share < 0.5 else (MIDDLE, UNCERTAIN, share * 2 - 1)
    red, green, blue = (round(a + (b - a) * t) for a, b in zip(low, high, strict=True))
    return f"rgb({red},{green},{blue})"


def token_style(entropy: float, age: int) -> Style:
    """Return the style of a token `age` steps after its commit."""
    if age >= COOLING:
        return Style()
    color = entropy_color(entropy)
    if age == 0:
        return Style(color="black", bgcolor=color, bold=True)
    return Style(color=color, bold=age == 1)


class View:
    """The canvas as a rich renderable. While it is live, it shows the lines around the first mask."""

    def __init__(self, generation: Generation, tokenizer: Any, title: str):
        self.generation, self.title = generation, title
        self.cells = Cells(generation, tokenizer)
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.cropped = True
        self.over = False

    def take(self, step: Step) -> None:
        """Update the view with the tokens of a step."""
        self.cells.take(step)
        self.seconds = time.perf_counter() - self.began

    def text(self, glyphs: Glyphs) -> Text:
        """Return the canvas as styled text. After the end of an answer with a stop text, return the final text."""
        if self.over and self.generation.stopped:
            return Text(printable(self.generation.text), overflow="fold")
        now = self.cells.latest.index if self.cells.latest else 0
        out = Text(overflow="fold")
        for group in self.cells.groups():
            if group.cell is None:
                mask, color = (glyphs.mask, "grey42") if group.active else (glyphs.waiting, "grey30")
                out.append(mask, color)
            else:
                out.append(glyphs.broken if group.text is None else printable(group.text), self.style(group.cell, now))
        return out

    def style(self, cell: Cell, now: int) -> Style:
        """Return the style of a cell in step `now`. In a finished document, the text of the holes is marked."""
        if self.over:
            in_document = self.cells.canvas.given[self.cells.first :].any()
            return FILLED if in_document and not cell.given else Style()
        return GIVEN if cell.given else token_style(cell.entropy, now - cell.step)

    def bar(self, glyphs: Glyphs) -> Text:
        """Return one character per block: active, forced to commit, complete, or waiting."""
        out = Text(no_wrap=True, overflow="ellipsis")
        step, cells = self.cells.latest, self.cells
        if step is None:
            return out
        for block in step.blocks:
            if not cells.masks(block):
                out.append(glyphs.complete, "green4")
            elif block.full:
                out.append(glyphs.full, "bold cyan")
            else:
                out.append(glyphs.active, "cyan")
        size = step.blocks[0].end - step.blocks[0].start
        left = cells.reach - step.blocks[-1].end
        out.append(glyphs.queued * min(-(-left // size), MOST_BLOCKS // 3), "grey42")
        return out[-MOST_BLOCKS:]

    def footer(self) -> Text:
        """Return the figures below the canvas."""
        stats = self.cells.latest.stats if self.cells.latest else None
        if stats is None:
            return Text("first forward ...", style="grey50")
        return Text(
            f"{forwards_text(stats)}  {stats.tokens_per_forward:.1f} tokens/forward  {stats.rows} rows  "
            f"{self.seconds:.1f} s",
            style="grey50",
            no_wrap=True,
            overflow="ellipsis",
        )

    def status(self, glyphs: Glyphs, width: int) -> list[Text]:
        """Return the bar and the figures: on one line, or on two lines if the view is narrow."""
        bar, footer = self.bar(glyphs), self.footer()
        lines = [bar, footer] if len(bar) + len(footer) + 2 > width else [Text.assemble(bar, "  ", footer)]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return lines

    def window(self, lines: list[Text], height: int, glyphs: Glyphs) -> list[Text]:
        """Return at most `height` lines, including the first one with a mask."""
        if len(lines) <= height:
            return lines
        marks = (glyphs.mask, glyphs.waiting)
        first = next((i for i, line in enumerate(lines) if any(mark in line.plain for mark in marks)), len(lines))
        start = max(0, min(first - height // 2, len(lines) - height))
        return lines[start : start + height]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        outer = max(options.max_width - ECHO_COLUMNS, 1)
        width = max(outer - SIDE_COLUMNS, 1)
        lines = list(self.text(glyphs).wrap(console, width, overflow="fold"))
        if self.cropped:
            lines = self.window(lines, max(1, console.height - CHROME_LINES), glyphs)
        body = Text("\n").join(lines)
        parts = [body] if self.over else [body, Text(), *self.status(glyphs, width)]
        yield Panel(
            Group(*parts),
            title=Text(self.title, style="bold", overflow="ellipsis", no_wrap=True),
            title_align="left",
            box=box.HORIZONTALS,
            border_style="grey42",
            padding=(0, 1),
            width=outer,
        )


class LiveView:
    """Consumer that redraws a `View` in place, then prints the complete answer and its statistics."""

    def __init__(self, generation: Generation, tokenizer: Any, title: str, console: Console | None = None):
        self.console = console or Screen()
        self.view = View(generation, tokenizer, title)
        self.live: Live | None = None
        self.drawn = 0.0
        self.size = self.console.size

    def start(self) -> None:
        self.live = Live(self.view, console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self.live.start(refresh=True)

    def step(self, step: Step) -> None:
        self.view.take(step)
        now = time.perf_counter()
        if self.live is None or now - self.drawn < REFRESH_SECONDS:
            return
        if self.console.size != self.size:
            # The terminal has wrapped the old frame again, so its first line is unknown.
            self.size = self.console.size
            self.stop()
            self.console.clear()
            self.start()
        self.live.refresh()
        self.drawn = now

    def finish(self, report: Report) -> None:
        self.stop()
        self.view.cropped, self.view.over = False, True
        self.console.print(self.view)
        for line in report.lines():
            self.console.print(line, markup=False)

    def close(self) -> None:
        if self.live is not None:
            # After an interrupt, the text so far stays on the screen.
            self.stop()
            self.view.cropped = False
            self.console.print(self.view)

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
