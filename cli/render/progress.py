"""Progress of a long run on standard error: a bar on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich import progress as rich
from rich.console import ConsoleDimensions
from rich.text import Text

from d3mlx.cli.render.printer import Screen
from d3mlx.distill.trajectories import Trajectory
from d3mlx.terminal import write

LINE_SECONDS = 30
"""Time between two lines of progress."""


class BarConsole(Screen):
    """Standard error, two columns narrower than the terminal.

    A terminal shows "^C" at Ctrl-C. A line of full width would then wrap, and the last refresh would print it twice.
    """

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Return the size of the terminal without the last two columns."""
        size = super().size
        return ConsoleDimensions(max(1, size.width - 2), size.height)


def bar(*, in_bytes: bool = False, shown: bool = True) -> rich.Progress:
    """Return a bar with a count, the remaining time and a note. It prints nothing if `shown` is false."""
    counts = (rich.DownloadColumn(), rich.TransferSpeedColumn()) if in_bytes else (rich.MofNCompleteColumn(),)
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), *counts, rich.TimeElapsedColumn())
    note = rich.TextColumn("{task.fields[note]}", markup=False)
    return rich.Progress(*columns, rich.TimeRemainingColumn(), note, console=BarConsole(stderr=True), disable=not shown)


class Progress:
    """Progress of one run. Use it in a `with` statement.

    total: None until an update gives it. in_bytes: count bytes. shown: False prints nothing. late: show the bar with
    the first update, so that it comes after the bars of a download.
    """

    def __init__(
        self, title: str, total: int | None = None, *, in_bytes: bool = False, shown: bool = True, late: bool = False
    ):
        on_terminal = shown and sys.stderr.isatty()
        self.bar = bar(in_bytes=in_bytes, shown=on_terminal)
        self.task = self.bar.add_task(title, total=total, start=not late, note="")
        self.late = late
        self.title, self.total, self.done = title, total, 0
        self.lines, self.last = shown and not on_terminal, time.monotonic()

    def __enter__(self) -> Self:
        if not self.late:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that `done` of `total` are done, with a note after it."""
        self.done, self.total = done, total or self.total
        if self.late:
            self.bar.start()
            self.bar.start_task(self.task)
        self.bar.update(self.task, completed=done, total=self.total, note=note)
        if self.lines and time.monotonic() - self.last > LINE_SECONDS:
            self.last = time.monotonic()
            of = f" of {self.total}" if self.total else ""
            write(sys.stderr, f"{self.title}: {done}{of}{f', {note}' if note else ''}\n")

    def advance(self, note: str = "") -> None:
        """Add one to the count, and show it with a note."""
        self.update(self.done + 1, note=note)


class RecordingProgress(Progress):
    """Progress of a recording. Its note is the share of correct answers among those checked."""

    checked = correct = 0

    def __call__(self, trajectory: Trajectory | None, done: int, total: int) -> None:
        """Show one more trajectory. At the start of a recording there is none."""
        if trajectory is not None and trajectory.correct is not None:
            self.checked += 1
            self.correct += trajectory.correct
        self.update(done, total, f"{self.correct / self.checked:.0%} correct" if self.checked else "")


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that changes the status text. The text is shown on a terminal only, with a spinner."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    with Screen(stderr=True).status(Text(text)) as shown:
        yield lambda text: shown.update(Text(text))
