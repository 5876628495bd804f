"""Measure a relaxed threshold near confident tokens: accuracy, TPF and RPT at equal thresholds and at equal TPF.

    python -m d3mlx.research.experiments.acceptance [--work FOLDER] [--model teacher] [--count N]
    python -m d3mlx.research.experiments.acceptance --write docs/results/acceptance.md

The decoder is `selective`. The models are the bundled student and its teacher, which also solves pairs of problems. An
interrupted run continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from d3mlx import load
from d3mlx.checkpoints.loader import EMBEDDED, TEACHER
from d3mlx.decoding.options import check_choice
from d3mlx.decoding.selective import Selective
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Folder, Setting
from d3mlx.evaluate.results import OperatingPoint, difference
from d3mlx.evaluate.run import EvalModel, run_point
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.files import fingerprint
from d3mlx.research.batches import CANVAS, QUESTIONS, SHOTS
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.script import script

THRESHOLDS = (0.35, 0.5, 0.7)
PLAIN, RELAXED = "one threshold", "relaxed"
FACTORS = {PLAIN: 1.0, RELAXED: 1.3}
"""Relaxed threshold of each variant, as a multiple of the threshold. 1.3 was chosen on validation problems."""


@dataclass(frozen=True)
class Subject:
    """A model, and the form of the task for it. questions, shots: problems and worked examples per prompt."""

    folder: str
    questions: int = 1
    shots: int = 0


SUBJECTS = {
    "student": Subject(EMBEDDED),
    "teacher": Subject(TEACHER),
    "pairs": Subject(TEACHER, QUESTIONS, SHOTS),
}


def preset(threshold: float, factor: float) -> Selective:
    return Selective(threshold, relaxed_threshold=threshold * factor if factor > 1 else None)


def measure(subject: Subject, count: int, work: Path) -> dict[str, list[OperatingPoint]]:
    """Return the points of each variant in the order of the thresholds. Problems without an answer are solved.

    count: held-out problems. work: folder of the answers of this model.
    """
    model = EvalModel(*load(subject.folder), max_tokens=subject.questions * CANVAS)
    task = Embedded(TaskOptions(shots=subject.shots), "llada", Kind(subject.questions))
    measured: dict[str, list[OperatingPoint]] = {}
    for name, factor in FACTORS.items():
        decoders = [repr(preset(at, factor).build(model.model.family)) for at in THRESHOLDS]
        config = {"task": task.name, "decoders": decoders, "model": fingerprint(subject.folder)}
        with Folder(work / name.replace(" ", "-")).opened(config) as folder:
            measured[name] = [
                run_point(model, task, preset(at, factor), folder, Setting("threshold", at), count // subject.questions)
                for at in THRESHOLDS
            ]
    return measured


def above(point: OperatingPoint, curve: Sequence[OperatingPoint]) -> float | None:
    """Return the accuracy in points minus that of the curve at the same TPF, or None outside the curve.

    curve: points with ascending TPF. Between them the curve is linear.
    """
    at = [each.score.tokens_per_forward for each in curve]
    tpf = point.score.tokens_per_forward
    if not at[0] <= tpf <= at[-1]:
        return None
    return 100 * (point.score.accuracy - float(np.interp(tpf, at, [each.score.accuracy for each in curve])))


def rows_of(model: str, measured: dict[str, list[OperatingPoint]]) -> list[list[str]]:
    """Return the rows of the table for one model."""
    rows = []
    for i, threshold in enumerate(THRESHOLDS):
        for name, points in measured.items():
            plain, score = measured[PLAIN][i], points[i].score
            low, high = score.interval
            change, over = difference(plain, points[i]), above(points[i], measured[PLAIN])
            same = f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
            rows.append(
                [
                    model,
                    f"{threshold:g}",
                    name,
                    f"{100 * score.accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
                    "" if name == PLAIN else same,
                    "" if name == PLAIN or over is None else f"{over:+.1f}",
                    f"{score.tokens_per_forward:.2f}",
                    f"{score.rows_per_token:.1f}",
                ]
            )
    return rows


HEADER = ["model", "threshold", "variant", "correct (95 %)", "points, same threshold", "points, same TPF", "TPF", "RPT"]


def compare(
    work: Annotated[Path, typer.Option(help="Folder of the answers.")] = Path("runs/acceptance"),
    model: Annotated[str | None, typer.Option(show_default="all", help="student, teacher or pairs.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Held-out problems of each model.")] = 1000,
    write: Annotated[Path | None, typer.Option(help="Write the table into this page.")] = None,
) -> None:
    """Solve the problems without an answer, and print the table or write it into a page."""
    if model is not None:
        check_choice("The model", model, tuple(SUBJECTS))
        if write is not None:
            raise ConfigError("The page contains all models. Leave out --model.")
    names = (model,) if model else tuple(SUBJECTS)
    rows = [row for name in names for row in rows_of(name, measure(SUBJECTS[name], count, work / name))]
    text = f"Each model solved {count:,} held-out problems.\n\n{table(HEADER, rows)}"
    if write is None:
        typer.echo(text)
    else:
        put(write, "acceptance", text)


if __name__ == "__main__":
    script(compare)
