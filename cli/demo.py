"""`d3mlx demo`: a fresh problem, solved by several decoders side by side."""

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
from d3mlx.data.problems import Problem, is_correct, problem
from d3mlx.decoding.decoder import Preset

DECODERS: dict[str, Preset] = {
    "one token per step": Vanilla(block_size=8),
    "fast-dllm": FastDLLM(),
    "selective": Selective(),
}

SIDE_BY_SIDE = 120
"""Columns of a terminal from which on the canvases stand next to each other."""

REFRESH_SECONDS = 1 / 30


@dataclass
class Contestant:
    """One decoder on one problem. seconds: time of its own forwards so far."""

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

    def record(self, asked: Problem) -> dict[str, Any]:
        """Return the result as plain JSON."""
        stats = self.generation.stats
        return {
            "decoder": self.name,
            "text": self.generation.text,
            "correct": is_correct(asked, self.generation.text),
            "forwards": stats.forwards,
            "rows": stats.rows,
            "seconds": round(self.seconds, 4),
        }


def contestants(model: Any, tokenizer: Any, question: str) -> list[Contestant]:
    """Return every decoder with an empty canvas for the question."""
    chat = [{"role": "user", "content": question}]
    made = []
    for name, decoder in DECODERS.items():
        generation = Generation(model, tokenizer, chat, decoder)
        made.append(Contestant(name, generation, View(generation, tokenizer, name)))
    return made


def race(running: list[Contestant], live: Live | None, shown: RenderableType) -> None:
    """Let all decode. The one that has used the least time makes the next step, as if each had a machine of its own."""
    left, drawn = list(running), 0.0
    while left:
        next_one = min(left, key=lambda contestant: contestant.seconds)
        if not next_one.step():
            left.remove(next_one)
        if live is not None and time.perf_counter() - drawn > REFRESH_SECONDS:
            live.update(shown, refresh=True)
            drawn = time.perf_counter()


def side_by_side(running: list[Contestant], console: Console) -> RenderableType:
    """Return the canvases of all contestants: next to each other on a wide terminal, else below each other."""
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
    count: Annotated[int, typer.Option(help="Number of problems.", min=1, max=1000)] = 1,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same problems.", show_default="a new one", min=0)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object per problem.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Watch three decoders solve a fresh problem.

    The demonstration model solves an arithmetic word problem that it has not seen: with one token per step, with
    fast-dllm, and with selective, the default decoder. The figures are those of this machine.
    """
    console = printer()
    model, tokenizer = load()
    # The first forward of a process also pays for what is set up once.
    contestants(model, tokenizer, "How many?")[0].step()
    chosen = random.randrange(2**31) if seed is None else seed
    for index in range(count):
        asked = problem(index, "held-out", chosen)
        running = contestants(model, tokenizer, asked.question)
        shown = side_by_side(running, console)
        if as_json or not console.is_terminal:
            race(running, None, shown)
        else:
            console.print(f"\n[bold]{asked.question}[/]\n")
            with Live(shown, console=console, auto_refresh=False, vertical_overflow="visible") as live:
                race(running, live, shown)
                live.update(shown, refresh=True)
            console.print()
        records = [contestant.record(asked) for contestant in running]
        if as_json:
            sys.stdout.write(json_text({"question": asked.question, "answer": asked.answer, "results": records}) + "\n")
            continue
        if not console.is_terminal:
            console.print(f"{asked.question}\nAnswer: {asked.answer}\n", soft_wrap=True, markup=False)
        console.print(results(records))
    if seed is None and not as_json:
        console.print(f"[dim]d3mlx demo --seed {chosen} shows the same again.[/]")
