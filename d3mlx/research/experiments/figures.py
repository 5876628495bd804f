"""The report's table and plot, from the results in `report.json`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from d3mlx.cli.render.scores import interval
from d3mlx.evaluate.aup import TOLERANCE
from d3mlx.evaluate.plot import Curve, Mark, draw
from d3mlx.files import write_text
from d3mlx.research.experiments import claims
from d3mlx.research.experiments.contestants import AUTOREGRESSIVE, ONE_PER_STEP, Y_MAX, d3llm, fast
from d3mlx.research.experiments.pages import DISTILLATION, put, table

ROOT = Path(__file__).parents[3]
RESULTS = Path(__file__).parent
PLOT = "docs/report.svg"

COLUMNS = ["model, decoder", "threshold", "exact answers, 95 %", "points against the first row", "TPF", "RPT"]
AREAS = {"aup": "AUP, 95 %", "aup_from_one_per_step": "AUP from the first row on, 95 %"}


def threshold(point: dict[str, Any]) -> str:
    value = point["setting"]["value"]
    return "" if value is None else f"{value:g}"


def area(run: dict[str, Any], kind: str) -> str:
    """AUP, its interval, and of how many points where some are left out."""
    summary, of = run[kind], len(run["points"])
    left_out = "" if summary["counted"] == of else f", {summary['counted']} of {of} points"
    return f"{summary['value']:.0f} [{summary['low']:.0f}, {summary['high']:.0f}]{left_out}"


def rows(run: dict[str, Any]) -> list[list[str]]:
    out = []
    for i, point in enumerate(run["points"]):
        change = point["difference"]
        against = f"{100 * change['value']:+.1f} {interval(change['low'], change['high'], '+')}"
        out.append(
            [
                run["name"] if i == 0 else "",
                threshold(point),
                f"{100 * point['accuracy']:.1f} % {interval(*point['interval'])}",
                "" if run["name"] == ONE_PER_STEP.name else against,
                f"{point['tokens_per_forward']:.2f}",
                f"{point['rows_per_token']:.1f}",
                *(area(run, kind) if i == 0 else "" for kind in AREAS),
            ]
        )
    return out


def points(results: dict[str, Any]) -> str:
    """The table of every point, as Markdown."""
    return table([*COLUMNS, *AREAS.values()], [row for run in results["runs"] for row in rows(run)])


def order(results: dict[str, Any], kind: str) -> str:
    """AUP in the order of the paper, and whether it rises and stays below the student's on the control."""
    values = {run["name"]: run[kind]["value"] for run in results["runs"]}
    control, student = values.get(d3llm("control").name), values[d3llm("student").name]
    rising = [*(values[contestant.name] for contestant in (ONE_PER_STEP, fast("teacher"), d3llm("teacher"))), student]
    holds = all(a < b for a, b in pairwise(rising)) and (control is None or control < student)
    shown = ", ".join(f"{value:.0f}" for value in rising)
    beside = "" if control is None else f", on the control {control:.0f}"
    return f"{shown}{beside}, {'the' if holds else 'not the'} order of the paper"


def beside(results: dict[str, Any]) -> str:
    """How often the autoregressive model is right, beside the best of the others; empty where it was not measured."""
    accuracies = {run["name"]: max(point["accuracy"] for point in run["points"]) for run in results["runs"]}
    alone = accuracies.pop(AUTOREGRESSIVE.name, None)
    if alone is None:
        return ""
    best = max(accuracies, key=lambda name: accuracies[name])
    others = f"Of the diffusion decoders above, {best} is correct most often, in {100 * accuracies[best]:.1f} %"
    return f"{AUTOREGRESSIVE.name} is correct in {100 * alone:.1f} %. {others}.\n\n"


def text(results: dict[str, Any]) -> str:
    """What was found in sentences, as Markdown."""
    areas = (
        "The paper's order of AUP is one per step, fast-dllm on the teacher, d3llm on the teacher, d3llm on the "
        f"student, and the control below the student. AUP of each curve alone: {order(results, 'aup')}. AUP as "
        f"planned, where every curve starts at one per step, without points more than {TOLERANCE:g} below it: "
        f"{order(results, 'aup_from_one_per_step')}."
    )
    about = (
        f"{results['problems']} held-out problems from number {results['first']} on. Every model was trained once, so "
        "intervals are over problems. Differences are paired. Under fast-dllm, tokens with a confidence above the "
        "threshold commit; under d3llm and selective, tokens with an entropy below it. AUP is relative to "
        f"{Y_MAX:g} %, so it is not comparable with published figures. AUP of a single point is its accuracy times its "
        "TPF, and the first point of a curve counts as much."
    )
    return f"{claims.text(results['claims'])}\n\n{beside(results)}{areas}\n\n{about}"


def plot(results: dict[str, Any]) -> str:
    curves = []
    for run in results["runs"]:
        marks = []
        for point in run["points"]:
            low, high = (100 * end for end in point["interval"])
            marks.append(Mark(point["tokens_per_forward"], 100 * point["accuracy"], low, high, threshold(point)))
        curves.append(Curve(f"{run['name']} (AUP {run['aup']['value']:.0f})", marks))
    return draw(curves, "tokens per forward", "The embedded task: accuracy over parallelism")


def section(results: dict[str, Any]) -> str:
    """Return the generated part of the page: the picture, the sentences, the table."""
    folded = f"<details>\n<summary>Every point</summary>\n\n{points(results)}\n\n</details>"
    return f"![Accuracy over tokens per forward](../{Path(PLOT).name})\n\n{text(results)}\n\n{folded}"


def publish(results: dict[str, Any], root: Path | None) -> None:
    """Show the results; with a root also write the plot and the page below it."""
    typer.echo(f"{points(results)}\n\n{text(results)}")
    if root is not None:
        write_text(root / PLOT, plot(results))
        put(root / DISTILLATION, "report", section(results))
