"""The table of the time that each stage of a run took."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from d3mlx.cli.render.printer import printer
from d3mlx.profiling import STAGES, Profile, Stage

MEANING: dict[Stage, str] = {
    "plan": "choose the rows to compute",
    "forward": "run the model and its head, wait for the result",
    "acceptance": "compute token statistics, choose the tokens to commit, wait for the result",
    "commit": "update the canvas, make the Step event",
    "consumers": "write text, draw, write JSON",
}


def profile_record(profile: Profile) -> dict[str, Any]:
    """Return a profile as a JSON-ready dict, with times in seconds."""
    return {"steps": profile.steps, "seconds": dict(profile.seconds), "total": profile.total}


def profile_table(profile: Profile) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    for name in ("ms/step", "seconds", "share"):
        table.add_column(name, justify="right")
    table.add_column("work")
    total, steps = profile.total, max(profile.steps, 1)
    for stage in STAGES:
        seconds = profile.seconds[stage]
        share = f"{100 * seconds / total:.1f} %" if total else ""
        table.add_row(stage, f"{1000 * seconds / steps:.3f}", f"{seconds:.3f}", share, MEANING[stage])
    table.add_row("all", f"{1000 * total / steps:.3f}", f"{total:.3f}", "", f"{profile.steps} steps")
    return table


def show_profile(profile: Profile) -> None:
    """Print a profile on standard error. Standard output may be JSON or text for another program."""
    printer(stderr=True).print(profile_table(profile))
