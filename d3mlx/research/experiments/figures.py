"""Text, table and plot of the report, from the results in `report.json`."""

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

COLUMNS = ["model, decoder", "threshold", "correct answers, 95 %", "points against the first row", "TPF", "RPT"]
AREAS = {"aup": "AUP, 95 %", "aup_from_one_per_step": "AUP from the first row on, 95 %"}


def threshold(point: dict[str, Any]) -> str:
    value = point["setting"]["value"]
    return "" if value is None else f"{value:g}"


def area(run: dict[str, Any], kind: str) -> str:
    """Return AUP with its interval, and the number of points in it if some are excluded."""
    summary, total = run[kind], len(run["points"])
    left_out = "" if summary["counted"] == total else f", {summary['counted']} of {total} points"
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
    """Return the Markdown table of every point."""
    return table([*COLUMNS, *AREAS.values()], [row for run in results["runs"] for row in rows(run)])


def order(results: dict[str, Any], kind: str) -> str:
    """Return AUP in the order of the paper, and whether it rises up to the student and is lower for the control."""
    values = {run["name"]: run[kind]["value"] for run in results["runs"]}
    control, student = values.get(d3llm("control").name), values[d3llm("student").name]
    rising = [*(values[contestant.name] for contestant in (ONE_PER_STEP, fast("teacher"), d3llm("teacher"))), student]
    same_order = all(a < b for a, b in pairwise(rising)) and (control is None or control < student)
    shown = ", ".join(f"{value:.0f}" for value in rising)
    of_control = "" if control is None else f", control {control:.0f}"
    return f"{shown}{of_control}. This {'is' if same_order else 'is not'} the order of the paper"


def autoregressive(results: dict[str, Any]) -> str:
    """Return a paragraph about the accuracies of the autoregressive model and of the best of the others.

    It is empty if the autoregressive model was not measured.
    """
    accuracies = {run["name"]: max(point["accuracy"] for point in run["points"]) for run in results["runs"]}
    alone = accuracies.pop(AUTOREGRESSIVE.name, None)
    if alone is None:
        return ""
    best = max(accuracies, key=lambda name: accuracies[name])
    others = f"The most accurate diffusion decoder is correct in {100 * accuracies[best]:.1f} % ({best})"
    return f"The autoregressive model is correct in {100 * alone:.1f} %. {others}.\n\n"


def text(results: dict[str, Any]) -> str:
    """Return the results in words, as Markdown."""
    areas = (
        "In the paper, AUP rises in this order: one token per step, fast-dllm on the teacher, d3llm on the teacher, "
        "d3llm on the student. The control is below the student.\n\n"
        f"- AUP of each curve alone: {order(results, 'aup')}.\n"
        f"- AUP as planned: {order(results, 'aup_from_one_per_step')}. Here every curve starts at one token per step. "
        f"Points are excluded if their accuracy is more than {TOLERANCE:g} percentage points lower."
    )
    about = (
        f"The {results['problems']:,} held-out problems start at number {results['first']:,}. Every model was trained "
        "once, so the intervals only describe the choice of problems. Differences are paired. fast-dllm commits tokens "
        "with a confidence above the threshold. d3llm and selective commit tokens with an entropy below it. AUP is "
        f"relative to {Y_MAX:g} %, so it is not comparable with published figures. The AUP of a single point is its "
        "accuracy times its TPF. The first point of a curve counts in the same way."
    )
    return f"{claims.text(results['claims'])}\n\n{autoregressive(results)}{areas}\n\n{about}"


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
    """Return the generated part of the page: picture, text and table."""
    details = f"<details>\n<summary>Every point</summary>\n\n{points(results)}\n\n</details>"
    return f"![Accuracy over tokens per forward](../{Path(PLOT).name})\n\n{text(results)}\n\n{details}"


def publish(results: dict[str, Any], root: Path | None) -> None:
    """Print the results. With `root`, also write the plot and the page below it."""
    typer.echo(f"{points(results)}\n\n{text(results)}")
    if root is not None:
        write_text(root / PLOT, plot(results))
        put(root / DISTILLATION, "report", section(results))
