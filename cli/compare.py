"""`d3mlx compare`: compare evaluations of one task."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from d3mlx.cli.common import Axis, JsonFile, Plot, YMax
from d3mlx.cli.render.scores import check_outputs, check_plot, check_y_max, show_comparison, write_json
from d3mlx.evaluate.results import area, difference, on_common_problems, picture, read_runs, summary
from d3mlx.files import write_text


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of d3mlx eval.", show_default=False)],
    y_max: YMax = None,
    json_file: JsonFile = None,
    plot: Plot = None,
    x: Axis = "tpf",
) -> None:
    """Compare evaluations of one task.

    Shows accuracies, paired differences, AUP and a plot. Only problems that all folders contain are counted.
    Differences are relative to the least parallel point of the first folder. Their 95 % intervals are paired.

    Example: d3mlx compare runs/embedded-d3llm runs/embedded-fast-dllm
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
        show_comparison(runs, areas, "best of all runs" if y_max is None else "given")
