"""`d3mlx compare`: finished evaluations side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from d3mlx.cli.render.scores import check_outputs, check_plot, check_y_max, show_comparison, write_json
from d3mlx.evaluate.results import area, difference, on_common_problems, picture, read_runs, summary
from d3mlx.files import write_text


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders that d3mlx eval has written.", show_default=False)],
    y_max: Annotated[
        float | None, typer.Option(help="Accuracy in percent that AUP is relative to, by default the best of all runs.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write accuracy over parallelism to this SVG file.")] = None,
    x: Annotated[
        Literal["tpf", "rpt"], typer.Option("--x", help="Axis of the plot: tokens per forward, or rows per token.")
    ] = "tpf",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file; - for standard output.")
    ] = None,
) -> None:
    """Compare evaluations of one task.

    Shows accuracies, paired differences, AUP and a plot.

    Every point is measured on the problems that all of them have. Differences
    are to the least parallel point of the first folder; their 95 % intervals
    make use of the problems being the same.
    """
    check_y_max(y_max)
    check_outputs(plot, json_file)
    check_plot(plot)
    runs = on_common_problems(read_runs(folders))
    top = max(run.best for run in runs) if y_max is None else y_max
    areas = [area(run, top) for run in runs]
    if plot is not None:
        write_text(plot, picture(runs, areas, x))
    if json_file is not None:
        reference = runs[0].by_parallelism()[0]
        summaries = [summary(run, run_area) for run, run_area in zip(runs, areas, strict=True)]
        for run, run_summary in zip(runs, summaries, strict=True):
            for point, part in zip(run.points, run_summary["points"], strict=True):
                part["difference"] = asdict(difference(reference, point))
        write_json(json_file, {"runs": summaries})
    if json_file != Path("-"):
        show_comparison(runs, areas, "the best of all runs" if y_max is None else "as given")
