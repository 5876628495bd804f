"""Repeat the paper's comparison on the embedded task: teacher, student, control and an autoregressive model.

    python -m d3mlx.research.experiments.report [--control FOLDER] [--autoregressive FOLDER] [--part 1/2]

The script solves 1,000 held-out problems with every contestant (`contestants.py`). It writes the figures to
`report.json`, and from them the tables and the plot of docs/results/distillation.md. The same command continues an
interrupted run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx.checkpoints.loader import EMBEDDED, TEACHER, load
from d3mlx.errors import DataError
from d3mlx.evaluate.results import OperatingPoint, difference, point_summary
from d3mlx.evaluate.run import EvalModel, attempt
from d3mlx.evaluate.tasks import task
from d3mlx.files import fingerprint, json_object, write_text
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.next_token import NextToken
from d3mlx.research.experiments.areas import area
from d3mlx.research.experiments.claims import claims
from d3mlx.research.experiments.contestants import CONTESTANTS, COUNT, FIRST, ONE_PER_STEP, Contestant, Models
from d3mlx.research.experiments.figures import RESULTS, ROOT, publish
from d3mlx.research.experiments.journal import Attempt, Part, finished, solve_missing
from d3mlx.research.experiments.pages import DISTILLATION, around
from d3mlx.research.script import script
from d3mlx.version import versions


def attempts_of(contestant: Contestant, folder: Path) -> dict[str, Attempt]:
    """Return a function for each of the contestant's points that solves a problem."""
    if contestant.model == "autoregressive":
        return {setting.name: NextToken.of(folder) for setting in contestant.presets}
    subject, held_out = EvalModel(*load(folder), max_tokens=CANVAS), task("embedded", "llada")
    return {
        setting.name: partial(attempt, subject, held_out, preset)
        for setting, preset in contestant.presets.items()
        if preset is not None
    }


def solve(models: Models, out: Path, problems: range, part: Part) -> None:
    """Solve this part of the problems with every contestant whose model has a folder."""
    for contestant in CONTESTANTS:
        folder = models.folder(contestant.model)
        if folder is not None:
            about = {"contestant": contestant.name, "model": fingerprint(folder), "decoders": contestant.settings}
            solve_missing(
                attempts_of(contestant, folder), part.of(problems), out / contestant.folder / part.file, about
            )


def curves(models: Models, out: Path, problems: Iterable[int]) -> dict[str, list[OperatingPoint]] | None:
    """Return the points of every contestant whose model has a folder, or None if answers are missing."""
    by_contestant = {}
    for contestant in CONTESTANTS:
        if models.folder(contestant.model):
            names = {setting.name: setting for setting in contestant.presets}
            answers = finished(out / contestant.folder, names, problems)
            if answers is None:
                return None
            by_contestant[contestant.name] = [
                OperatingPoint(names[name], list(solved.records.values())) for name, solved in answers.items()
            ]
    return by_contestant


def run_summary(
    contestant: Contestant, points: list[OperatingPoint], reference: OperatingPoint, folder: Path
) -> dict[str, Any]:
    """Return a curve as JSON: AUP, and points with the paired difference of their accuracy to the reference."""
    return {
        "name": contestant.name,
        "model": contestant.model,
        "model_fingerprint": fingerprint(folder),
        "versions": versions(),
        "points": [point_summary(point) | {"difference": asdict(difference(reference, point))} for point in points],
        "aup": asdict(area(points)),
        "aup_from_one_per_step": asdict(area(points, reference)),
    }


def comparable(before: dict[str, Any], models: Models, problems: range) -> bool:
    """Return whether earlier results are of this teacher and student on these problems."""
    measured = {run["model"]: run["model_fingerprint"] for run in before.get("runs", [])}
    same = {"teacher": fingerprint(models.teacher), "student": fingerprint(models.student)}
    before_problems = range(before.get("first", 0), before.get("first", 0) + before.get("problems", 0))
    return same.items() <= measured.items() and before_problems == problems


def summarize(
    models: Models, measured: dict[str, list[OperatingPoint]], problems: range, before: dict[str, Any]
) -> dict[str, Any]:
    """Return all results: those measured now, and earlier ones of models without a folder, if they are comparable."""
    earlier = before if comparable(before, models, problems) else {"runs": [], "claims": []}
    old = {run["name"]: run for run in earlier["runs"]}
    reference = measured[ONE_PER_STEP.name][0]
    runs = []
    for contestant in CONTESTANTS:
        folder = models.folder(contestant.model)
        if folder is not None:
            runs.append(run_summary(contestant, measured[contestant.name], reference, folder))
        elif contestant.name in old:
            runs.append(old[contestant.name])
    old_claims = [claim for claim in earlier["claims"] if models.folder(claim["model"]) is None]
    return {
        "task": "embedded",
        "first": problems.start,
        "problems": len(problems),
        "runs": runs,
        "claims": sorted(claims(measured) + old_claims, key=lambda claim: str(claim["student"])),
    }


def report(
    teacher: Annotated[Path, typer.Option(help="Folder of the teacher.")] = Path(TEACHER),
    student: Annotated[Path, typer.Option(help="Folder of the student.")] = Path(EMBEDDED),
    control: Annotated[
        Path | None, typer.Option(help="Folder of the control. Without it, its committed results stay.")
    ] = None,
    autoregressive: Annotated[
        Path | None, typer.Option(help="Folder of the autoregressive model. Without it, its committed results stay.")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Problems to solve. With fewer than the default, the page stays as it is.")
    ] = COUNT,
    part: Annotated[
        str, typer.Option(help="Part of the problems: 1/2 and 2/2 share the work between two processes.")
    ] = "1/1",
    out: Annotated[Path, typer.Option(help="Folder of the answers.")] = Path("runs/report"),
) -> None:
    """Measure what is missing. The last run also writes the results, the plot and the page."""
    models, complete = Models(teacher, student, control, autoregressive), count == COUNT
    models.check()
    if complete:
        around(ROOT / DISTILLATION, "report")
    problems = range(FIRST, FIRST + count)
    solve(models, out, problems, Part.named(part))
    measured = curves(models, out, problems)
    if measured is None:
        typer.echo("Other parts are not finished. The last part to finish writes the results.")
        return
    path = RESULTS / "report.json"
    before = (json_object(path) if path.exists() else {}) if complete else {}
    if before is None:
        raise DataError(f"{path} is damaged. Restore it, or remove it and measure every model again.")
    results = summarize(models, measured, problems, before)
    if complete:
        write_text(path, json.dumps(results, indent=1) + "\n")
    publish(results, ROOT if complete else None)


if __name__ == "__main__":
    script(report)
