"""What the report says in words: how parallel the student is where it is as accurate as something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from d3mlx.cli.render.scores import interval
from d3mlx.evaluate.results import OperatingPoint, difference
from d3mlx.research.experiments.contestants import ONE_PER_STEP, SMALL_BLOCKS, Contestant, d3llm, fast, selective

ALLOWED = 0.02
"""How much accuracy, as a share, the student's parallelism may cost."""

ALONE: tuple[tuple[Contestant, float | None], ...] = ((ONE_PER_STEP, None), (SMALL_BLOCKS, None))

REFERENCES: tuple[tuple[Contestant, Sequence[tuple[Contestant, float | None]]], ...] = (
    (d3llm("student"), (*ALONE, (fast("teacher"), 0.9), (d3llm("teacher"), 0.5), (d3llm("control"), 0.5))),
    (selective("student"), (*ALONE, (selective("teacher"), 0.5), (selective("control"), 0.5))),
)
"""What the student under each decoder is held to: a contestant, at its default threshold."""


def claim(student: Sequence[OperatingPoint], reference: OperatingPoint) -> dict[str, Any]:
    """The most parallel point of the student that is at most 2 points less accurate than the reference.

    times, rows: its tokens per forward and its rows per token, as multiples of the reference's.
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
    """The student under its decoders, each beside every reference that was measured."""
    out = []
    for student, references in REFERENCES:
        for contestant, threshold in references:
            if contestant.name in measured:
                point = next(point for point in measured[contestant.name] if point.setting.value == threshold)
                against = contestant.name if threshold is None else f"{contestant.name} {threshold:g}"
                about = {"student": student.decoder, "against": against, "model": contestant.model}
                out.append(about | claim(measured[student.name], point))
    return out


def sentence(claimed: Mapping[str, Any]) -> str:
    """A claim in words."""
    if claimed["threshold"] is None:
        return f"{claimed['against']}: at none of its thresholds."
    change = claimed["difference"]
    return (
        f"{claimed['against']}: at {claimed['threshold']:g}, with {claimed['times']:.2f} times the tokens per forward, "
        f"{claimed['rows']:.2f} times the rows per token and accuracy {100 * change['value']:+.1f} points "
        f"{interval(change['low'], change['high'], '+')}."
    )


def text(all_claims: Sequence[Mapping[str, Any]]) -> str:
    """All claims, as Markdown."""
    out = []
    for student in dict.fromkeys(claimed["student"] for claimed in all_claims):
        out.append(
            f"The most parallel threshold at which the student under {student} is within {100 * ALLOWED:g} points of "
            "each reference, on these problems:\n"
        )
        out += [f"- {sentence(claimed)}" for claimed in all_claims if claimed["student"] == student]
        out.append("")
    return "\n".join(out).rstrip()
