"""`d3mlx demo`: a new problem, solved by three decoders side by side."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from d3mlx import FastDLLM, Generation, Selective, Vanilla, load
from d3mlx.cli.common import OUTPUT
from d3mlx.cli.render.consumers import json_text
from d3mlx.cli.render.live import View
from d3mlx.cli.render.printer import printer
from d3mlx.data.stories.problem import Problem, is_correct
from d3mlx.data.stories.stories import problem
from d3mlx.decoding.decoder import Preset
from d3mlx.terminal import write_json

DECODERS: dict[str, Preset] = {
    "one token per step": Vanilla(block_size=8),
    "fast-dllm": FastDLLM(),
    "selective": Selective(),
}

SIDE_BY_SIDE = 120
"""Minimum width of a terminal, in columns, to show the canvases next to each other."""

REFRESH_SECONDS = 1 / 30


@dataclass
class Contestant:
    """A decoder and its answer to a problem. seconds: time of its own forwards so far."""

    name: str
    generation: Generation
    view: View
    seconds: float = 0.0
    steps: Any = field(init=False)

    def __post_init__(self) -> None:
        self.steps = iter(self.generation)

    def step(self) -> bool:
        """Run one forward. Return False if the answer was complete before."""
        began = time.perf_counter()
        step = next(self.steps, None)
        if step is None:
            self.view.over = True
            return False
        self.seconds += time.perf_counter() - began
        self.view.take(step)
        self.view.seconds = self.seconds
        return True

    def record(self, task: Problem) -> dict[str, Any]:
        """Return the result as a JSON-ready dict."""
        stats = self.generation.stats
        return {
            "decoder": self.name,
            "text": self.generation.text,
            "correct": is_correct(task, self.generation.text),
            "forwards": stats.forwards,
            "rows": stats.rows,
            "seconds": round(self.seconds, 4),
        }


def contestants(model: Any, tokenizer: Any, question: str) -> list[Contestant]:
    """Return a contestant per decoder, with an empty canvas for the question."""
    chat = [{"role": "user", "content": question}]
    generations = {name: Generation(model, tokenizer, chat, decoder) for name, decoder in DECODERS.items()}
    return [Contestant(name, each, View(each, tokenizer, name)) for name, each in generations.items()]


def race(running: list[Contestant], live: Live | None, shown: RenderableType) -> None:
    """Decode all answers. The contestant with the least time so far runs the next step."""
    left, drawn = list(running), 0.0
    while left:
        earliest = min(left, key=lambda contestant: contestant.seconds)
        if not earliest.step():
            left.remove(earliest)
        if live is not None and time.perf_counter() - drawn > REFRESH_SECONDS:
            live.update(shown, refresh=True)
            drawn = time.perf_counter()


def side_by_side(running: list[Contestant], console: Console) -> RenderableType:
    """Return the canvases of all contestants. On a narrow terminal they are one below the other."""
    views = [contestant.view for contestant in running]
    if console.width < SIDE_BY_SIDE:
        return Group(*views)
    return Columns(views, width=console.width // len(views), padding=0, expand=True)


def results(records: list[dict[str, Any]]) -> Table:
    """Return the results of one problem as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("decoder", "correct", "forwards", "rows", "seconds"):
        table.add_column(heading, justify="left" if heading in ("decoder", "correct") else "right")
    for record in records:
        correct = "[green]yes[/]" if record["correct"] else "[red]no[/]"
        figures = (str(record["forwards"]), str(record["rows"]), f"{record['seconds']:.2f}")
        table.add_row(record["decoder"], correct, *figures)
    return table


def demo(
    count: Annotated[int, typer.Option(help="Number of problems to solve.", min=1, max=1000)] = 1,
    seed: Annotated[int | None, typer.Option(help="Seed of the problems.", show_default="random", min=0)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object per problem.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Watch three decoders solve a new problem.

    The bundled model solves a word problem that is not in its training data: with one token per step, with fast-dllm,
    and with selective, the default decoder. The times are measured on this machine.

    Example: d3mlx demo --seed 7
    """
    console = printer()
    model, tokenizer = load()
    # The first forward of a process includes one-time setup, so run one before the race.
    contestants(model, tokenizer, "How many?")[0].step()
    chosen = random.randrange(2**31) if seed is None else seed
    for index in range(count):
        task = problem(index, "held-out", chosen)
        running = contestants(model, tokenizer, task.question)
        shown = side_by_side(running, console)
        if as_json or not console.is_terminal:
            race(running, None, shown)
        else:
            console.print(f"\n[bold]{task.question}[/]\n")
            with Live(shown, console=console, auto_refresh=False, vertical_overflow="visible") as live:
                race(running, live, shown)
                live.update(shown, refresh=True)
            console.print()
        records = [contestant.record(task) for contestant in running]
        if as_json:
            write_json(
                sys.stdout, json_text({"question": task.question, "answer": task.answer, "results": records}) + "\n"
            )
            continue
        if not console.is_terminal:
            console.print(f"{task.question}\nAnswer: {task.answer}\n", soft_wrap=True, markup=False)
        console.print(results(records))
    if seed is None and not as_json:
        console.print(f"[dim]To see the same again, run d3mlx demo --seed {chosen}.[/]")
