"""The time of a run by stage, as a person reads it."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from d3mlx.cli.render.printer import printer
from d3mlx.profiling import STAGES, Profile, Stage

MEANING: dict[Stage, str] = {
    "plan": "which rows are computed",
    "forward": "the model on them, head included; the host waits",
    "acceptance": "token statistics, which tokens commit; the host waits",
    "commit": "canvas and Step event",
    "consumers": "text, rendering, JSON",
}


def profile_record(profile: Profile) -> dict[str, Any]:
    """For JSON, in seconds."""
    return {"steps": profile.steps, "seconds": dict(profile.seconds), "total": profile.total}


def profile_table(profile: Profile) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    for name in ("ms a step", "seconds", "share"):
        table.add_column(name, justify="right")
    table.add_column("what")
    total, steps = profile.total, max(profile.steps, 1)
    for stage in STAGES:
        seconds = profile.seconds[stage]
        share = f"{100 * seconds / total:.1f} %" if total else ""
        table.add_row(stage, f"{1000 * seconds / steps:.3f}", f"{seconds:.3f}", share, MEANING[stage])
    table.add_row("all", f"{1000 * total / steps:.3f}", f"{total:.3f}", "", f"{profile.steps} steps")
    return table


def show_profile(profile: Profile) -> None:
    """On standard error, whatever standard output is for."""
    printer(stderr=True).print(profile_table(profile))
