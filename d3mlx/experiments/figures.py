"""The report's figures: areas, claims, the table and the plot, all from the results in `report.json`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from d3mlx.errors import ConfigError
from d3mlx.evaluate.aup import TOLERANCE, aup
from d3mlx.evaluate.plot import Curve, Mark, draw
from d3mlx.evaluate.results import Point, difference
from d3mlx.experiments.contestants import ONE_PER_STEP, Y_MAX, d3llm, fast
from d3mlx.experiments.readme import put, table
from d3mlx.files import write_text

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent
PLOT = "docs/report.svg"

ALLOWED = 0.02
"""How much accuracy, as a share, the student's parallelism may cost in a claim."""

COLUMNS = ["model, decoder", "threshold", "exact answers, 95 %", "against one per step", "TPF", "RPT", "AUP"]


def place(point: dict[str, Any]) -> tuple[float, float]:
    """Tokens per forward, accuracy in percent."""
    return point["tokens_per_forward"], 100 * point["accuracy"]


def with_areas(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs with their AUP.

    The curve of a decoder begins at the teacher's one token per step, so that all are held to the same accuracy; points
    more than 5 below it are left out, as published. A single point stands alone.
    """
    start = next(place(run["points"][0]) for run in runs if run["name"] == ONE_PER_STEP.name)
    out = []
    for run in runs:
        points = [place(point) for point in run["points"]]
        curve = points if len(points) == 1 else [start, *(p for p in points if p[1] >= start[1] - TOLERANCE)]
        out.append(run | {"aup": aup(curve, Y_MAX), "y_max": Y_MAX})
    return out


def claim(student: list[Point], reference: Point, against: str) -> dict[str, Any]:
    """The most parallel point of the student that is at most 2 points less accurate than the reference."""
    near = [point for point in student if difference(reference, point).value >= -ALLOWED]
    if not near:
        return {"against": against, "threshold": None}
    best = max(near, key=lambda point: point.score.tokens_per_forward)
    return {
        "against": against,
        "threshold": best.setting.value,
        "times": best.score.tokens_per_forward / reference.score.tokens_per_forward,
        "difference": asdict(difference(reference, best)),
    }


def claims(measured: dict[str, list[Point]]) -> list[dict[str, Any]]:
    """What the student's tokens per forward are times those of one per step, and of the teacher under Fast-dLLM 0.9."""
    student = measured[d3llm("student").name]
    usual = next(point for point in measured[fast("teacher").name] if point.setting.value == 0.9)
    return [
        claim(student, measured[ONE_PER_STEP.name][0], "the teacher's one token per step"),
        claim(student, usual, "the teacher under Fast-dLLM 0.9"),
    ]


def percent(low: float, high: float, sign: str = "") -> str:
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def rows(run: dict[str, Any]) -> list[list[str]]:
    out = []
    for i, point in enumerate(run["points"]):
        value, change = point["setting"]["value"], point["difference"]
        against = f"{100 * change['value']:+.1f} {percent(change['low'], change['high'], '+')}"
        out.append(
            [
                run["name"] if i == 0 else "",
                "" if value is None else f"{value:g}",
                f"{100 * point['accuracy']:.1f} % {percent(*point['interval'])}",
                "" if run["name"] == ONE_PER_STEP.name else against,
                f"{point['tokens_per_forward']:.2f}",
                f"{point['rows_per_token']:.1f}",
                f"{run['aup']:.1f}" if i == 0 else "",
            ]
        )
    return out


def sentence(one: dict[str, Any]) -> str:
    """A claim in words."""
    if one["threshold"] is None:
        return f"At no threshold does the student come within {100 * ALLOWED:g} points of {one['against']}."
    change = one["difference"]
    return (
        f"Within {100 * ALLOWED:g} points of {one['against']}, the student under d3llm has at most {one['times']:.2f} "
        f"times its tokens per forward: threshold {one['threshold']:g}, accuracy {100 * change['value']:+.1f} points "
        f"{percent(change['low'], change['high'], '+')}."
    )


def text(results: dict[str, Any]) -> str:
    """Table and sentences, as Markdown."""
    lines = table(COLUMNS, [row for run in results["runs"] for row in rows(run)])
    said = "\n".join(f"- {sentence(one)}" for one in results["claims"])
    about = (
        f"{results['problems']} held-out problems from number {results['first']} on, AUP relative to {Y_MAX:g} %, "
        "intervals of 95 %, differences paired."
    )
    return f"{lines}\n\n{about}\n\n{said}"


def plot(results: dict[str, Any]) -> str:
    curves = []
    for run in results["runs"]:
        marks = []
        for point in run["points"]:
            x, y = place(point)
            low, high = (100 * end for end in point["interval"])
            value = point["setting"]["value"]
            marks.append(Mark(x, y, low, high, "" if value is None else f"{value:g}"))
        curves.append(Curve(f"{run['name']} (AUP {run['aup']:.0f})", marks))
    return draw(curves, "tokens per forward", "The embedded task: accuracy over parallelism")


def publish(results: dict[str, Any], root: Path | None) -> None:
    """Show the results; with a root write the plot and README.md below it too."""
    typer.echo(text(results))
    if root is None:
        return
    if not (root / "README.md").is_file():
        raise ConfigError(f"{root} is no checkout of d3mlx; the results are written, README.md is not.")
    write_text(root / PLOT, plot(results))
    put(root / "README.md", "report", f"![Accuracy over tokens per forward]({PLOT})\n\n{text(results)}")
