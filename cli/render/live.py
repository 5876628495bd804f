"""The live view: a canvas of masked tokens resolving in the terminal.

It listens to Steps. A mask is a quiet cell, a fresh commit is lit and cools over the next steps, its colour tells how
sure the model was, and a bar shows what each block is doing.
"""

from __future__ import annotations

import time
import unicodedata
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

COOLING = 4
"""Steps until a committed token looks like any other text."""

REFRESH_SECONDS = 1 / 15
CHROME_LINES = 6
"""Lines of a frame that are not canvas: two rules, the bar, the footer, and the cursor's own."""

ECHO_COLUMNS = 2
"""Room for the ^C that a terminal shows: where it wraps, the frame above is not taken back whole."""

SIDE_COLUMNS = 4
"""Columns beside the canvas: the panel's edges and its padding."""

MOST_BLOCKS = 24
"""Signs of the bar, whose line the statistics share: the newest blocks, and some of those to come."""

SURE, UNSURE = (64, 196, 160), (232, 96, 200)
MIDDLE = (236, 180, 72)


@dataclass(frozen=True)
class Glyphs:
    mask: str
    waiting: str
    broken: str
    queued: str
    active: str
    full: str
    complete: str


UNICODE = Glyphs(mask="░", waiting="·", broken="·", queued="·", active="▒", full="▓", complete="█")
ASCII = Glyphs(mask="_", waiting=".", broken="?", queued=".", active="-", full="=", complete="#")


def entropy_colour(entropy: float) -> str:
    """Green through amber to magenta for 0 to 2 nats and beyond."""
    share = min(max(entropy, 0.0) / 2, 1.0)
    low, high, t = (SURE, MIDDLE, share * 2) if share < 0.5 else (MIDDLE, UNSURE, share * 2 - 1)
    red, green, blue = (round(a + (b - a) * t) for a, b in zip(low, high, strict=True))
    return f"rgb({red},{green},{blue})"


def token_style(entropy: float, age: int) -> Style:
    """How a token looks `age` steps after it committed."""
    if age >= COOLING:
        return Style()
    colour = entropy_colour(entropy)
    if age == 0:
        return Style(color="black", bgcolor=colour, bold=True)
    return Style(color=colour, bold=age == 1)


def printable(text: str) -> str:
    """Text that cannot move the cursor: control characters but the newline become a visible sign."""
    flat = text.replace("\t", "    ").replace("\r\n", "\n")
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\u200d" else c for c in flat)


@dataclass
class Cell:
    """A committed position."""

    token: int
    entropy: float
    step: int


class Pieces:
    """Text of token runs: a character that is spread over several tokens appears when it is complete."""

    LONGEST_CHARACTER = 4

    def __init__(self, tokenizer: Any, silent: set[int]):
        self.tokenizer, self.silent = tokenizer, silent
        self.known: dict[tuple[int, ...], str] = {}

    def text(self, tokens: tuple[int, ...]) -> str:
        if tokens not in self.known:
            self.known[tokens] = self.tokenizer.decode(list(tokens))
        return self.known[tokens]

    def split(self, cells: list[Cell]) -> Iterator[tuple[str | None, Cell]]:
        """(text, newest cell) of each character group; None for one that still lacks bytes."""
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
    """A frame of the canvas as rich renders it; `height` limits it to the lines around the action."""

    def __init__(self, generation: Generation, tokenizer: Any, title: str):
        self.canvas, self.generation, self.title = generation.canvas, generation, title
        silent = {*tokenizer.all_special_ids, *tokenizer.eos_token_ids}
        self.pieces = Pieces(tokenizer, silent)
        self.cells: list[Cell | None] = [None] * len(self.canvas)
        self.first = self.canvas.prompt_length
        self.reach = self.visible = self.canvas.active_length
        self.latest: Step | None = None
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.cropped = True
        self.over = False

    def take(self, step: Step) -> None:
        """Note what a step committed, filled, where the answer ends now, and how far the canvas has grown."""
        for position, token, entropy in zip(step.positions, step.tokens, step.entropies, strict=True):
            self.cells[int(position)] = Cell(int(token), float(entropy), step.index)
        self.reach = self.canvas.active_length
        self.visible = min(self.reach, self.first + len(self.canvas.answer))
        self.latest = step
        self.seconds = time.perf_counter() - self.began

    def runs(self) -> Iterator[list[Cell] | int]:
        """Committed stretches, and between them the positions that are masked."""
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
        """The whole canvas as styled text, masks included; once over, an answer that a stop text ended as it is."""
        stream = self.generation.stream
        if self.over and stream is not None and stream.done:
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
                style = Style() if self.over else token_style(cell.entropy, now - cell.step)
                out.append(glyphs.broken if text is None else printable(text), style)
        return out

    def bar(self, glyphs: Glyphs) -> Text:
        """One sign for each block that exists: working, pressed for progress, complete; a dot for the rest."""
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
        stats = self.latest.stats if self.latest else None
        if stats is None:
            return Text("first forward ...", style="grey50")
        return Text(
            f"{stats.forwards} forwards  {stats.tokens_per_forward:.1f} tokens/forward  {stats.rows} rows  "
            f"{self.seconds:.1f} s",
            style="grey50",
            no_wrap=True,
            overflow="ellipsis",
        )

    def window(self, lines: list[Text], height: int, glyphs: Glyphs) -> list[Text]:
        """At most `height` lines, the first unfinished one among them."""
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
        parts = [body] if self.over else [body, Text(), Text.assemble(self.bar(glyphs), "  ", self.footer())]
        if not self.over:
            parts[-1].no_wrap, parts[-1].overflow = True, "ellipsis"
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
    """Consumer that redraws a `View` in place and leaves the finished answer with its statistics."""

    def __init__(self, generation: Generation, tokenizer: Any, title: str, console: Console | None = None):
        self.console = console or Console(highlight=False)
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
            # After a resize the terminal has rewrapped the old frame, and nobody knows where it begins.
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
            # Interrupted: what has come out so far stays on the screen.
            self.stop()
            self.view.cropped = False
            self.console.print(self.view)

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
