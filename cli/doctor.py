"""`d3mlx doctor`: check this installation and machine."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from d3mlx.bench.diagnosis import CHECKS, run_check
from d3mlx.cli.render.consumers import json_text
from d3mlx.cli.render.printer import printer
from d3mlx.cli.render.progress import status
from d3mlx.terminal import write_json

STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Write the checks as a JSON array.")] = False) -> None:
    """Check this installation and this machine.

    Checks software, device, memory, Metal kernels, matrix products, an answer of the bundled model, folders and the
    Hugging Face Hub. Paste the output into a report. The exit status is 1 if something is wrong.

    Example: d3mlx doctor
    """
    with status("Checking ...") as show:
        checks = []
        for name in CHECKS:
            show(f"Checking: {name}")
            checks.append(run_check(name))
    if as_json:
        write_json(sys.stdout, json_text([asdict(check) for check in checks], indent=2) + "\n")
    else:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for check in checks:
            table.add_row(check.name, Text(check.state, STYLES[check.state]), Text(check.text, overflow="fold"))
        printer().print(table)
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(1)
