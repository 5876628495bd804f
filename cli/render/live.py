"""The live view: a canvas of masked tokens resolving in the terminal.

It is a consumer of Steps. A mask is a gray cell. A new token is bright and fades over the next steps; its color shows
how confident the model was. A bar shows the state of each block.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.text import Text

from d3mlx import Generation, Step
from d3mlx.cli.render.consumers import Report
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


@dataclass
class Cell:
    """A position with a token. given: the token was given, so the model did not commit it."""

    token: int
    entropy: float
    step: int
    given: bool = False


class Pieces:
    """Text of consecutive tokens. A character made of several tokens appears when all of them are committed."""

    LONGEST_CHARACTER = 4

    def __init__(self, tokenizer: Any, silent: set[int]):
        self.tokenizer, self.silent = tokenizer, silent
        self.known: dict[tuple[int, ...], str] = {}

    def text(self, tokens: tuple[int, ...]) -> str:
        """Return the decoded text of tokens."""
        if tokens not in self.known:
            self.known[tokens] = self.tokenizer.decode(list(tokens))
        return self.known[tokens]

    def split(self, cells: list[Cell]) -> Iterator[tuple[str | None, Cell]]:
        """Yield the text and the newest cell of each group of characters. The text is None if bytes are missing."""
        start = 0
        while start < len(cells):
            for end in range(start + 1, min(start + self.LONGEST_CHARACTER, len(cells)) + 1):
                group = cells[start:end]
                text = self.text(tuple(cell.token for cell in group if cell.token not in self.silent))
                if not text.endswith("�"):
                    break
            else:
                incomplete = end == len(cells)
                end, group = (end, group) if incomplete else (start + 1, cells[start : start + 1])
                text = None if incomplete else "�"  # type: ignore[assignment]
            yield text, max(group, key=lambda cell: cell.step)
            start = end


class View:
    """The canvas as a rich renderable. While it is live, it shows the lines around the first mask."""

    def __init__(self, generation: Generation, tokenizer: Any, title: str):
        self.generation, self.title = generation, title
        silent = {*tokenizer.all_special_ids, *tokenizer.eos_token_ids}
        self.pieces = Pieces(tokenizer, silent)
        self.first = generation.layout.start
        self.latest: Step | None = None
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.cropped = True
        self.over = False
        self.open()

    def open(self) -> None:
        """Show the canvas of the generation's current round."""
        self.canvas = canvas = self.generation.canvas
        self.cells: list[Cell | None] = [
            Cell(token, 0.0, -COOLING, given=True) if given else None
            for token, given in zip(canvas.tokens.tolist(), canvas.given.tolist(), strict=True)
        ]
        self.reach = self.visible = canvas.active_length

    def take(self, step: Step) -> None:
        """Update the view with the tokens of a step, the end of the answer and the active length of the canvas."""
        self.latest, self.seconds = step, time.perf_counter() - self.began
        if self.generation.canvas is not self.canvas:
            self.open()
            return
        for position, token, entropy in zip(step.positions, step.tokens, step.entropies, strict=True):
            self.cells[int(position)] = Cell(int(token), float(entropy), step.index)
        for position in step.filled.tolist():
            self.cells[position] = Cell(int(self.canvas.tokens[position]), 0.0, step.index)
        self.reach = self.canvas.active_length
        last = self.canvas.holes[-1]
        self.visible = min(self.reach, last.answer_end) if last.end == len(self.canvas) else self.reach

    def runs(self) -> Iterator[list[Cell] | int]:
        """Yield consecutive committed cells as a list, and each masked position as a number, in order."""
        stretch: list[Cell] = []
        for position, cell in enumerate(self.cells[self.first : self.visible], self.first):
            if cell is not None:
                stretch.append(cell)
                continue
            if stretch:
                yield stretch
                stretch = []
            yield position
        if stretch:
            yield stretch

    def text(self, glyphs: Glyphs) -> Text:
        """Return the canvas as styled text. After the end of an answer with a stop text, return the final text."""
        if self.over and self.generation.stopped:
            return Text(printable(self.generation.text), overflow="fold")
        now = self.latest.index if self.latest else 0
        reach = self.latest.blocks[-1].end if self.latest else 0
        out = Text(overflow="fold")
        for run in self.runs():
            if isinstance(run, int):
                active = run < reach
                out.append(glyphs.mask if active else glyphs.waiting, "grey42" if active else "grey30")
                continue
            for text, cell in self.pieces.split(run):
                style = self.style(cell, now)
                out.append(glyphs.broken if text is None else printable(text), style)
        return out

    def style(self, cell: Cell, now: int) -> Style:
        """Return the style of a cell in step `now`. In a finished document, the text of the holes is marked."""
        if self.over:
            return FILLED if self.canvas.given[self.first :].any() and not cell.given else Style()
        return GIVEN if cell.given else token_style(cell.entropy, now - cell.step)

    def bar(self, glyphs: Glyphs) -> Text:
        """Return one character per block: active, forced to commit, complete, or waiting."""
        out = Text(no_wrap=True, overflow="ellipsis")
        step = self.latest
        if step is None:
            return out
        for block in step.blocks:
            masked = sum(cell is None for cell in self.cells[block.start : min(block.end, self.visible)])
            if not masked:
                out.append(glyphs.complete, "green4")
            elif block.full:
                out.append(glyphs.full, "bold cyan")
            else:
                out.append(glyphs.active, "cyan")
        size = step.blocks[0].end - step.blocks[0].start
        left = self.reach - step.blocks[-1].end
        out.append(glyphs.queued * min(-(-left // size), MOST_BLOCKS // 3), "grey42")
        return out[-MOST_BLOCKS:]

    def footer(self) -> Text:
        """Return the figures below the canvas."""
        stats = self.latest.stats if self.latest else None
        if stats is None:
            return Text("first forward ...", style="grey50")
        count = f"{stats.forwards} forward{'s' * (stats.forwards != 1)}"
        return Text(
            f"{count}  {stats.tokens_per_forward:.1f} tokens/forward  {stats.rows} rows  {self.seconds:.1f} s",
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
