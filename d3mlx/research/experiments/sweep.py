"""Measure settings of the selective cache on validation problems: accuracy over rows, and over forwards.

python -m d3mlx.research.experiments.sweep [--work FOLDER] [--part 1/2] [--count N]
python -m d3mlx.research.experiments.sweep --draw docs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from d3mlx import load
from d3mlx.checkpoints.loader import TEACHER
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.selective import Selective
from d3mlx.errors import DataError
from d3mlx.evaluate.plot import Curve, Mark, draw
from d3mlx.evaluate.run import EvalModel
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.files import fingerprint, write_text
from d3mlx.research.batches import CANVAS
from d3mlx.research.experiments.journal import Answers, Part, finished, measure, read
from d3mlx.research.script import script

BLOCK_SIZES = (8, 16, 32)
BLOCK_ADDS = (0.1, 0.5)
ACTIVATIONS = (0.5, 0.95)
THRESHOLDS = (0.1, 0.2, 0.4, 0.7)

Axis = Callable[[Answers], float]

AXES: dict[str, tuple[str, Axis]] = {
    "rows": ("rows per token", lambda answers: answers.score.rows_per_token),
    "forwards": ("forwards per token", lambda answers: 1 / answers.score.tokens_per_forward),
}
"""Costs by name. Time grows with rows if arithmetic limits a forward (M1 to M4).

If reading the weights limits it, time grows with forwards.
"""


def settings() -> dict[str, Preset]:
    grid = product(BLOCK_SIZES, BLOCK_ADDS, ACTIVATIONS, THRESHOLDS)
    presets: dict[str, Preset] = {
        f"blocks of {size}, add {add:g}, activation {share:g}, threshold {threshold:g}": Selective(
            threshold, size, add, share
        )
        for size, add, share, threshold in grid
    }
    return presets | {f"d3llm, threshold {threshold:g}": D3LLM(threshold=threshold) for threshold in THRESHOLDS}


def family_of(name: str) -> str:
    """Return the name of the curve that a setting belongs to."""
    return name.split(",")[0]


def front(measured: Mapping[str, Answers], cost: Axis) -> list[str]:
    """Return the settings that no other setting beats in both accuracy and cost, cheapest first."""
    best: list[str] = []
    for name in sorted(measured, key=lambda name: (cost(measured[name]), -measured[name].score.accuracy)):
        if not best or measured[name].score.accuracy > measured[best[-1]].score.accuracy:
            best.append(name)
    return best


def picture(measured: Mapping[str, Answers], axis: str) -> str:
    """Return the plot of the best settings of each family, as SVG."""
    words, cost = AXES[axis]
    curves = []
    for family in dict.fromkeys(map(family_of, measured)):
        members = {name: answers for name, answers in measured.items() if family_of(name) == family}
        marks = []
        for name in front(members, cost):
            low, high = members[name].score.interval
            marks.append(Mark(cost(members[name]), 100 * members[name].score.accuracy, 100 * low, 100 * high))
        curves.append(Curve(family, marks))
    return draw(curves, words, "selective cache: the best settings by block size, and d3llm")


def show(measured: Mapping[str, Answers], console: Console) -> None:
    for words, cost in AXES.values():
        table = Table(
            "setting", "accuracy", "TPF", "RPT", title=f"settings that no other beats in accuracy and {words}"
        )
        for name in front(measured, cost):
            score = measured[name].score
            figures = f"{score.accuracy:.1%}", f"{score.tokens_per_forward:.2f}", f"{score.rows_per_token:.1f}"
            table.add_row(name, *figures)
        console.print(table)


def sweep(
    work: Annotated[Path, typer.Option(help="Folder of the answers.")] = Path("runs/sweep"),
    part: Annotated[
        str, typer.Option(help="Part of the problems: 1/2 and 2/2 share the work between two processes.")
    ] = "1/1",
    count: Annotated[int, typer.Option(min=1, help="Validation problems.")] = 200,
    shots: Annotated[int, typer.Option("--num-fewshot", min=0, help="Worked examples before each problem.")] = 0,
    draw_in: Annotated[
        Path | None, typer.Option("--draw", help="Draw the measured settings into this folder, and measure nothing.")
    ] = None,
) -> None:
    """Measure every setting, or draw the measured settings."""
    if draw_in is None:
        process = Part.named(part)
        subject = EvalModel(*load(TEACHER), max_tokens=CANVAS)
        task = Embedded(TaskOptions(shots=shots), "llada", Kind(split="validation"))
        about = {"model": fingerprint(TEACHER), "shots": shots}
        measure(subject, task, settings(), process.of(range(count)), work / process.file, about)
        complete = finished(work, settings(), range(count))
        if complete is None:
            typer.echo("Other parts are not finished. The last part to finish shows the figures.")
            return
        measured = complete
    else:
        _, measured = read(work)
        if not measured:
            raise DataError(f"{work} does not contain answers yet. Run the sweep without --draw first.")
        for axis in AXES:
            write_text(draw_in / f"selective-{axis}.svg", picture(measured, axis))
    show(measured, Console())


if __name__ == "__main__":
    script(sweep)
