"""Tables of evaluations, and the files that `eval` and `compare` write."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from d3mlx import terminal
from d3mlx.cli.render.consumers import json_text, plain_value
from d3mlx.cli.render.printer import printer
from d3mlx.errors import ConfigError
from d3mlx.evaluate.results import Area, OperatingPoint, Run, difference, different_settings
from d3mlx.files import write_text


def check_y_max(y_max: float | None) -> None:
    if y_max is not None and not 0 < y_max <= 100:
        raise ConfigError(f"Invalid --y-max {y_max:g}. Use an accuracy in percent, above 0 and at most 100.")


def check_plot(path: Path | None) -> None:
    if path == Path("-"):
        raise ConfigError("--plot cannot write to standard output. Give a file name, for example curve.svg.")


def check_outputs(*paths: Path | None) -> None:
    """Raise ConfigError if one of the files cannot be written. A long run must not fail at its end."""
    for path in paths:
        if path is not None and path != Path("-") and not path.absolute().parent.is_dir():
            raise ConfigError(f"Cannot write {path}: there is no folder {path.parent}. Create it first.")
        if path is not None and path.is_dir():
            raise ConfigError(f"{path} is a folder. Give the name of a file.")


def write_json(path: Path, value: Any) -> None:
    """Write a value to a file, or to standard output if the path is "-"."""
    if path == Path("-"):
        terminal.write_json(sys.stdout, json_text(plain_value(value), indent=2) + "\n")
    else:
        write_text(path, json.dumps(plain_value(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def interval(low: float, high: float, sign: str = "") -> str:
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def cells(point: OperatingPoint, strict: bool) -> list[str]:
    """Return the figures of a point, in the order of the columns."""
    totals = point.score
    figures = [f"{100 * totals.accuracy:.2f} %", interval(*totals.interval)]
    if strict:
        figures.append("" if totals.strict_accuracy is None else f"{100 * totals.strict_accuracy:.2f} %")
    return [*figures, f"{totals.tokens_per_forward:.2f}", f"{totals.rows_per_token:.1f}"]


def add_columns(table: Table, strict: bool, last: str) -> None:
    for name in ["accuracy", "95 %", *(["strict"] if strict else []), "TPF", "RPT", last]:
        table.add_column(name, justify="right")


def has_strict(runs: Sequence[Run]) -> bool:
    return any(point.score.strict is not None for run in runs for point in run.points)


def show_run(run: Run, run_area: Area, y_max_given: bool) -> None:
    """Print the table of one evaluation and its AUP on standard output."""
    strict = has_strict([run])
    options = {point.setting.option or "decoder" for point in run.points}
    table = Table(options.pop() if len(options) == 1 else "setting", box=None, padding=(0, 2, 0, 0))
    add_columns(table, strict, "forwards")
    for point in run.points:
        value = point.setting.value
        name = "default" if value is None else f"{value:g}"
        table.add_row(name, *cells(point, strict), f"{point.score.forwards:,}")
    console = printer()
    console.print(table)
    console.print(area_line(run_area, "given" if y_max_given else "best of this run"), soft_wrap=True, markup=False)


def area_line(run_area: Area, origin: str) -> str:
    """Return AUP as one line, or the reason why there is none. origin: source of y-max."""
    if run_area.value is None:
        return str(run_area.why)
    points = "point is" if run_area.left_out == 1 else "points are"
    excluded = f"; {run_area.left_out} {points} not counted (accuracy too low)" if run_area.left_out else ""
    return f"AUP: {run_area.value:.2f} with y-max {run_area.y_max:.2f} % ({origin}){excluded}"


def show_comparison(runs: Sequence[Run], areas: Sequence[Area], origin: str) -> None:
    """Print the points of all runs. Each has its difference to the least parallel point of the first run."""
    reference, strict = runs[0].by_parallelism()[0], has_strict(runs)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    add_columns(table, strict, "difference")
    for run in runs:
        table.add_row(Text(run.name, style="bold"))
        for point in run.by_parallelism():
            if point is reference:
                change = "reference"
            else:
                paired = difference(reference, point)
                change = f"{100 * paired.value:+.2f} {interval(paired.low, paired.high, '+')}"
            table.add_row(Text(f"  {point.setting.label}"), *cells(point, strict), change)
    console = printer()
    console.print(table)
    console.print(f"Measured on the {reference.score.problems} problems of all runs. Differences in percentage points.")
    apart = different_settings(runs)
    if apart:
        console.print(f"The runs also differ in {', '.join(apart)}, which can explain a part of the differences.")
    for run, run_area in zip(runs, areas, strict=True):
        console.print(f"{run.name}: {area_line(run_area, origin)}", soft_wrap=True, markup=False)
