"""Measure infill on held-out problems: an equation is missing in the middle of a solution.

    python -m d3mlx.research.experiments.holes [--count 500] [--model FOLDER]

Each decoder fills a hole of the correct size and a hole of free length, and continues the text before the hole from
left to right, without the text after it. The last run with all problems writes the table of docs/results/infill.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from d3mlx import D3LLM, Document, FastDLLM, Generation, Selective, Vanilla, load
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.data.stories.problem import Problem
from d3mlx.data.stories.stories import problem
from d3mlx.decoding.decoder import Preset
from d3mlx.document import Blank
from d3mlx.evaluate.statistics import wilson
from d3mlx.generation import run_batch
from d3mlx.research.batches import CANVAS
from d3mlx.research.experiments.figures import ROOT
from d3mlx.research.experiments.pages import INFILL, put, table
from d3mlx.research.script import script

COUNT = 500
FIRST = 200_000
"""The first problem. No other experiment uses these problems."""

DECODERS: dict[str, Preset] = {
    "vanilla, blocks of 8": Vanilla(block_size=8),
    "fast-dllm": FastDLLM(),
    "d3llm": D3LLM(),
    "selective": Selective(),
}


@dataclass(frozen=True)
class Task:
    """A solved problem in which one equation is missing."""

    question: str
    before: str
    equation: str
    after: str

    @classmethod
    def at(cls, index: int) -> Task:
        """Return task `index`, with a random equation of the solution."""
        return cls.of(problem(index, "held-out"), index)

    @classmethod
    def of(cls, solved: Problem, index: int) -> Task:
        """Return the task that misses an equation of a problem, which the index chooses."""
        equation = random.Random(f"hole/{index}").choice(solved.equations)
        before, after = solved.solution.split(equation, 1)
        return cls(solved.question, before, equation, after)

    def document(self, *parts: Any) -> Document:
        return Document(parts, [{"role": "user", "content": self.question}])


@dataclass
class Run:
    """Totals of one way to fill the holes."""

    correct: int = 0
    count: int = 0
    forwards: int = 0

    def text(self) -> str:
        low, high = wilson(self.correct, self.count)
        share = self.correct / self.count
        return f"{share:.1%} [{low:.1%}, {high:.1%}], {self.forwards / self.count:.1f}"


def begins_with(text: str, equation: str) -> bool:
    """Return whether a text begins with an equation, and not with a longer number."""
    text = text.strip()
    return text.startswith(equation) and not text[len(equation) : len(equation) + 1].isdigit()


def measure_way(model: Any, tokenizer: Any, decoder: Preset, tasks: list[Task], way: str) -> Run:
    """Return the totals of a decoder on the tasks. way: `fixed`, `free`, or `left` (continue from left to right)."""

    def generations() -> Iterator[Generation]:
        for task in tasks:
            # The space before the equation is a token of the hole.
            size = len(tokenizer.encode(f" {task.equation}", add_special_tokens=False))
            parts = {
                "fixed": (task.before, Blank(size), task.after),
                "free": (task.before, Blank(), task.after),
                "left": (task.before, Blank()),
            }[way]
            generation = Generation(model, tokenizer, task.document(*parts), decoder, max_tokens=CANVAS)
            tasks_of[generation] = task
            yield generation

    tasks_of: dict[Generation, Task] = {}
    feed, run = generations(), Run()
    for generation, _ in run_batch(model, lambda: next(feed, None)):
        if generation.done:
            text, equation = generation.fills[0].text, tasks_of[generation].equation
            run.correct += begins_with(text, equation) if way == "left" else text.strip() == equation
            run.count += 1
            run.forwards += generation.stats.forwards
    return run


def measure(
    count: Annotated[int, typer.Option(min=1, help="Problems.")] = COUNT,
    model: Annotated[str, typer.Option(help="Folder of the model.")] = EMBEDDED,
) -> None:
    """Measure every decoder and print a table. With all problems and the bundled model, write it to the page."""
    loaded = load(model)
    tasks = [Task.at(FIRST + index) for index in range(count)]
    rows = []
    for name, decoder in DECODERS.items():
        runs = [measure_way(*loaded, decoder, tasks, way) for way in ("fixed", "free", "left")]
        rows.append([name, *(run.text() for run in runs)])
        typer.echo(f"{name} measured", err=True)
    shown = table(["Decoder", "Size is given", "Free length", "Left to right, without the text after it"], rows)
    typer.echo(shown)
    if count == COUNT and model == EMBEDDED:
        put(ROOT / INFILL, "holes", shown)


if __name__ == "__main__":
    script(measure)
