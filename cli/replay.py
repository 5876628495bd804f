"""`d3mlx replay`: make a page that plays a recorded run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from d3mlx.cli.render.scores import check_outputs
from d3mlx.data.records import check_file
from d3mlx.errors import ConfigError
from d3mlx.files import check_writable, write_text
from d3mlx.replay import page, read_trace
from d3mlx.terminal import write


def replay(
    trace: Annotated[Path, typer.Argument(help="Trace of d3mlx generate --trace.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file to write.", show_default="name of the trace with .html"),
    ] = None,
) -> None:
    """Make a page that plays a recorded run.

    The page shows how the canvas resolves, step by step, with the entropy of every token. It is one HTML file that any
    browser opens without a network. d3mlx generate --trace FILE.html writes it directly.

    Example: d3mlx replay run.json -o run.html
    """
    check_file(trace)
    target = trace.with_suffix(".html") if output is None else output
    if target.exists() and trace.exists() and target.samefile(trace):
        raise ConfigError(f"{target} is the trace. Give another file with --output.")
    text = page(read_trace(trace))
    check_outputs(target)
    check_writable(target)
    write_text(target, text)
    write(sys.stdout, f"{target} is written. Open it in a browser.\n")
