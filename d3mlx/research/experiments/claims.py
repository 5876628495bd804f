"""Claims of the report: how parallel the student is where it is as accurate as a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from d3mlx.cli.render.scores import interval
from d3mlx.evaluate.results import OperatingPoint, difference
from d3mlx.research.experiments.contestants import ONE_PER_STEP, SMALL_BLOCKS, Contestant, d3llm, fast, selective
from d3mlx.research.experiments.pages import table

COLUMNS = ["reference", "threshold", "tokens per forward", "rows per token", "accuracy, points (95 %)"]

ALLOWED = 0.02
"""Accuracy that the student may lose against a reference, as a share."""

ALONE: tuple[tuple[Contestant, float | None], ...] = ((ONE_PER_STEP, None), (SMALL_BLOCKS, None))

REFERENCES: tuple[tuple[Contestant, Sequence[tuple[Contestant, float | None]]], ...] = (
    (d3llm("student"), (*ALONE, (fast("teacher"), 0.9), (d3llm("teacher"), 0.5), (d3llm("control"), 0.5))),
    (selective("student"), (*ALONE, (selective("teacher"), 0.5), (selective("control"), 0.5))),
)
"""References for the student under each decoder: a contestant and its default threshold."""


def claim(student: Sequence[OperatingPoint], reference: OperatingPoint) -> dict[str, Any]:
    """Return the student's most parallel point that is at most 2 percentage points less accurate than the reference.

    times, rows: tokens per forward and rows per token, as multiples of the reference's.
    """
    close = [point for point in student if difference(reference, point).value >= -ALLOWED]
    if not close:
        return {"threshold": None}
    best = max(close, key=lambda point: point.score.tokens_per_forward)
    return {
        "threshold": best.setting.value,
        "times": best.score.tokens_per_forward / reference.score.tokens_per_forward,
        "rows": best.score.rows_per_token / reference.score.rows_per_token,
        "difference": asdict(difference(reference, best)),
    }


def claims(measured: Mapping[str, Sequence[OperatingPoint]]) -> list[dict[str, Any]]:
    """Return the claims about the student under its decoders, for every reference that was measured."""
    out = []
    for student, references in REFERENCES:
        for contestant, threshold in references:
            if contestant.name in measured:
                point = next(point for point in measured[contestant.name] if point.setting.value == threshold)
                against = contestant.name if threshold is None else f"{contestant.name} {threshold:g}"
                about = {"student": student.decoder, "against": against, "model": contestant.model}
                out.append(about | claim(measured[student.name], point))
    return out


def cells(claimed: Mapping[str, Any]) -> list[str]:
    """Return a claim as a row of the table."""
    if claimed["threshold"] is None:
        return [claimed["against"], "none", "", "", ""]
    change = claimed["difference"]
    return [
        claimed["against"],
        f"{claimed['threshold']:g}",
        f"{claimed['times']:.2f} times",
        f"{claimed['rows']:.2f} times",
        f"{100 * change['value']:+.1f} {interval(change['low'], change['high'], '+')}",
    ]


def text(all_claims: Sequence[Mapping[str, Any]]) -> str:
    """Return all claims as Markdown: a table for each decoder of the student."""
    parts = [
        "These tables compare the student with references. The threshold shown gives the most tokens per forward with "
        f"a loss of at most {100 * ALLOWED:g} points of accuracy. If it is `none`, every threshold loses more. "
        "Multiples are relative to the reference."
    ]
    for student in dict.fromkeys(claimed["student"] for claimed in all_claims):
        rows = [cells(claimed) for claimed in all_claims if claimed["student"] == student]
        parts.append(f"Student under {student}:\n\n{table(COLUMNS, rows)}")
    return "\n\n".join(parts)
