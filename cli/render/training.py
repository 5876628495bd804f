"""Display of a training run: a live panel on a terminal, regular lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import mlx.core as mx
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from d3mlx.cli.render.printer import Screen
from d3mlx.cli.render.progress import bar
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.trainer import Report
from d3mlx.terminal import write

SPARK = "▁▂▃▄▅▆▇█"
HISTORY = 48
"""Number of points of the loss curve."""


def spark(values: list[float]) -> str:
    """Return a curve as one line of block characters."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARK[min(int((value - low) / span * len(SPARK)), len(SPARK) - 1)] for value in values)


class Speed:
    """Mean number of tokens per second since the start of the run."""

    def __init__(self) -> None:
        self.tokens, self.began = 0, time.perf_counter()

    def add(self, report: Report) -> float:
        """Add the tokens of a step, and return tokens per second."""
        self.tokens += report.tokens
        return self.tokens / max(time.perf_counter() - self.began, 1e-9)


def cells(report: Report, speed: float) -> dict[str, str]:
    """Return the figures of a step as text, under their names."""
    shown = {"loss": f"{report.loss:.4f}"}
    shown |= {name.replace("_", " "): f"{value:.4f}" for name, value in report.terms.items()}
    shown |= {name.replace("_", " "): f"{value:.3g}" for name, value in report.figures.items()}
    shown |= {"gradient": f"{report.norm:.3g}", "rate": f"{report.rate:.2e}", "tokens/s": f"{speed:.0f}"}
    return shown | {"peak memory": f"{mx.get_peak_memory() / 1e9:.2f} GB"}


class LivePanel:
    """Progress bar, figures of the latest step, and the curve of the loss."""

    def __init__(self, title: str):
        self.progress = bar()
        self.task = self.progress.add_task(title, total=None, note="")
        self.speed, self.losses = Speed(), list[float]()
        self.live = Live(self.progress, console=Screen(stderr=True), refresh_per_second=4)

    def __enter__(self) -> LivePanel:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def begin(self, first: int, steps: int) -> None:
        self.progress.update(self.task, total=steps, completed=first)

    def step(self, report: Report) -> None:
        self.progress.update(self.task, completed=report.step)
        self.losses = [*self.losses, report.loss][-HISTORY:]
        self.live.update(self.frame(report))

    def frame(self, report: Report) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        shown = list(cells(report, self.speed.add(report)).items())
        for i in range(0, len(shown), 4):
            table.add_row(*(f"[dim]{name}[/] {value}" for name, value in shown[i : i + 4]))
        return Group(self.progress, table, f"[dim]loss[/] {spark(self.losses)}")


class Lines:
    """One line every `every` steps on standard error."""

    def __init__(self, every: int):
        self.every, self.speed, self.steps = every, Speed(), 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, first: int, steps: int) -> None:
        self.steps = steps

    def step(self, report: Report) -> None:
        speed = self.speed.add(report)
        if report.step % self.every == 0 or report.step == self.steps:
            figures = ", ".join(f"{name} {value}" for name, value in cells(report, speed).items())
            write(sys.stderr, f"step {report.step}/{self.steps}: {figures}\n")


def watcher(config: DistillConfig, rows: int) -> Any:
    """Return the display of a run. rows: number of examples."""
    if sys.stderr.isatty():
        return LivePanel(f"{config.objective} on {rows} examples")
    return Lines(config.log_every)
