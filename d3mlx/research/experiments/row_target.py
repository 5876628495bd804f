"""Predict the time per token on a Mac from the rows of every step, for numbers of rows and masks, and for two versions.

python -m d3mlx.research.experiments.row_target [--before /other/.venv/bin/python] [--count 2000] [--model student]
python -m d3mlx.research.experiments.row_target ... --write docs/results/row-target.md

Every step of the bundled models is recorded with its number of rows. Its price is that of a forward of as many rows of
a 4-bit LLaDA-8B (`bench/roofline.py`), so the times are predictions. Accuracies are measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from d3mlx.bench.chips import chip_named
from d3mlx.bench.cost import cost
from d3mlx.bench.roofline import Roofline
from d3mlx.bench.shapes import SHAPES, skeleton
from d3mlx.checkpoints.loader import EMBEDDED, TEACHER
from d3mlx.data.stories.problem import is_correct
from d3mlx.data.stories.stories import page
from d3mlx.decoding.cache_policy import LONG
from d3mlx.decoding.options import check_choice
from d3mlx.evaluate.statistics import paired_difference
from d3mlx.research.batches import QUESTIONS
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.experiments.speed import Version
from d3mlx.research.script import script

MODELS = {"student": (EMBEDDED, 1), "teacher": (TEACHER, 1), "pairs": (TEACHER, QUESTIONS)}
"""Folder of each model, and problems per prompt."""

CHIPS = ("M4 Max", "M5 Max")
BEFORE, DEFAULT = "version before", "default"
OPTIONS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "all masks at first": {"first_masks": LONG},
    "16 masks at first": {"first_masks": 16},
    **{f"{rows} rows": {"rows": rows} for rows in (16, 24, 48, 64)},
    "block-add 0.1": {"block_add": 0.1},
    "every block open": {"block_add": 0.0},
}
"""Options of the decoder `selective` by name."""


@dataclass
class Run:
    """Totals of one version with one set of options. rows: of every step, by problem."""

    correct: list[bool] = field(default_factory=list)
    tokens: int = 0
    rows: list[list[int]] = field(default_factory=list)

    def add(self, result: dict[str, Any], correct: bool) -> None:
        self.correct.append(correct)
        self.tokens += result["tokens"]
        self.rows.append(result["rows"])

    def milliseconds(self, roofline: Roofline) -> float:
        """Return the predicted milliseconds per token."""
        return 1000 * sum(roofline.seconds(rows) for steps in self.rows for rows in steps) / self.tokens

    def per_token(self, counted: Callable[[list[int]], int]) -> float:
        """Return a count of the steps of every problem, per token."""
        return sum(counted(steps) for steps in self.rows) / self.tokens


def measured(model: str, versions: dict[str, tuple[Version, dict[str, Any]]], count: int) -> dict[str, Run]:
    """Return a run per version and options on the first `count` held-out problems."""
    folder, questions = MODELS[model]
    runs = {name: Run() for name in versions}
    for index in track(range(count // questions), f"solving, {model}"):
        problem = page(index, questions, "held-out")
        for name, (version, options) in versions.items():
            result = version.call("solve_with", model=folder, options=options, question=problem.question)
            runs[name].add(result, is_correct(problem, result["text"]))
    return runs


def table_of(runs: dict[str, Run]) -> str:
    """Return a table of the runs. Differences and ratios are relative to the first one."""
    paper = cost(skeleton(SHAPES["llada-8b"], q_bits=4), context=0)
    chips = [Roofline(chip_named(name), paper) for name in CHIPS]
    first = next(iter(runs.values()))
    lines = []
    for name, run in runs.items():
        change = paired_difference(first.correct, run.correct)
        points = f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
        line = [name, f"{100 * sum(run.correct) / len(run.correct):.1f} %", "" if run is first else points]
        line += [f"{1 / run.per_token(len):.2f}", f"{run.per_token(sum):.1f}"]
        for chip in chips:
            mine, before = run.milliseconds(chip), first.milliseconds(chip)
            line.append(f"{mine:.1f}" if run is first else f"{mine:.1f} ({before / mine:.2f}x)")
        lines.append(line)
    headers = [f"{chip}, ms per token" for chip in CHIPS]
    return table(["decoder", "correct", "points (95 %)", "TPF", "RPT", *headers], lines)


def compare(
    before: Annotated[str | None, typer.Option(help="Python of the environment with an earlier version.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Held-out problems.")] = 2000,
    model: Annotated[str, typer.Option(help="student, teacher or pairs.")] = "student",
    write: Annotated[Path | None, typer.Option(help="Write the table into this page.")] = None,
) -> None:
    """Compare the defaults of two versions, or options of this version, and print or write a table."""
    check_choice("--model", model, tuple(MODELS))
    here = Version(sys.executable)
    if before is None:
        versions = {name: (here, options) for name, options in OPTIONS.items()}
    else:
        versions = {BEFORE: (Version(before), dict[str, Any]()), DEFAULT: (here, OPTIONS[DEFAULT])}
    text = table_of(measured(model, versions, count))
    if write is None:
        typer.echo(text)
    else:
        put(write, f"{model}-{'options' if before is None else 'versions'}", f"{count:,} held-out problems:\n\n{text}")


if __name__ == "__main__":
    script(compare)
