"""Measure which cached rows must be computed again: accuracy, TPF and RPT of many policies, compared with no cache.

    python -m d3mlx.research.experiments.refresh [--count N] [--only PATTERN] [--block-size N] [--threshold T]
                                                 [--max-tokens N] [--out FILE.json]

All variants solve the same validation problems with the teacher. Differences in accuracy need many problems. Slips show
differences sooner. A slip is a committed token that differs from the token of a forward over all positions of the same
canvas.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from d3mlx import Generation, Selective, load
from d3mlx.checkpoints.loader import TEACHER
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.schedule import MultiBlock
from d3mlx.engine import read
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Record, score
from d3mlx.evaluate.run import EvalModel, solve
from d3mlx.evaluate.statistics import Difference, paired_difference
from d3mlx.evaluate.tasks import Task, TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.files import write_text
from d3mlx.kernels.dispatch import on_device
from d3mlx.kernels.token_stats import token_stats
from d3mlx.research.batches import CANVAS
from d3mlx.research.script import script


@dataclass(frozen=True)
class Variant:
    """The decoder `selective`. exact: without a cache, and with the whole canvas from the start."""

    preset: Selective
    exact: bool = False

    def build(self, family: str) -> Decoder:
        decoder = self.preset.build(family)
        if not self.exact:
            return decoder
        assert isinstance(decoder.schedule, MultiBlock)
        return replace(decoder, schedule=replace(decoder.schedule, ahead=None), cache=NoCache())


EXACT = "no cache"


def variants(base: Selective) -> dict[str, Variant]:
    """Return the variants by name."""
    out = {EXACT: Variant(base, exact=True)}
    for recent in (1, 2, 3, 4):
        out[f"recent {recent}, near 0"] = Variant(replace(base, recent=recent, near=0))
    for near in (1, 2, 4, 8):
        out[f"recent 1, near {near}"] = Variant(replace(base, recent=1, near=near))
    for interval in (8, 4):
        out[f"all rows every {interval} steps"] = Variant(replace(base, refresh_interval=interval))
    for masks in (32, 64):
        out[f"{masks} masks at first"] = Variant(replace(base, first_masks=masks))
    for rows in (16, 24, 48, 64):
        out[f"{rows} rows"] = Variant(replace(base, rows=rows))
    return out


@dataclass
class Slips:
    """Differences between cached and exact forwards. commits: committed tokens. slipped: how many of them are slips.

    entropies: number of eligible positions over all steps. drift: sum of their differences in entropy, in nats.
    """

    commits: int = 0
    slipped: int = 0
    entropies: int = 0
    drift: float = 0.0

    @property
    def share(self) -> float:
        return self.slipped / self.commits if self.commits else 0.0

    @property
    def mean_drift(self) -> float:
        return self.drift / self.entropies if self.entropies else 0.0

    def watch(self, generation: Generation) -> None:
        """Decode to the end, and compare each step with a forward over all positions."""
        model, canvas = generation.model, generation.canvas
        before = canvas.tokens.copy()
        for step in generation:
            hidden = model.hidden(on_device(before[: canvas.active_length])[None])
            source = step.eligible - model.shift
            stats = token_stats(model.logits(hidden[:, on_device(source)])[0], canvas.mask_id)
            guesses, entropies = read([stats.token, stats.entropy])
            committed = np.isin(step.eligible, step.positions)
            self.commits += int(committed.sum())
            self.slipped += int((committed & (guesses != step.guesses)).sum())
            self.entropies += len(entropies)
            self.drift += float(np.abs(entropies - step.guess_entropies).sum())
            before = canvas.tokens.copy()


@dataclass(frozen=True)
class Finding:
    """A variant, its records, and its slips."""

    name: str
    records: list[Record]
    slips: Slips

    def against(self, exact: Finding) -> Difference:
        return paired_difference(*([record.correct for record in finding.records] for finding in (exact, self)))

    def summary(self, exact: Finding) -> dict[str, Any]:
        total = score(self.records)
        return {
            "variant": self.name,
            **asdict(total),
            "accuracy": total.accuracy,
            "interval": total.interval,
            "tokens_per_forward": total.tokens_per_forward,
            "rows_per_token": total.rows_per_token,
            "against_no_cache": asdict(self.against(exact)),
            "slips": asdict(self.slips) | {"share": self.slips.share, "mean_drift": self.slips.mean_drift},
        }


def find(subject: EvalModel, task: Task, name: str, variant: Variant, counts: tuple[int, int]) -> Finding:
    """Solve `counts[0]` problems, and count the slips in `counts[1]` of them. Without a cache there are no slips."""
    count, watched = counts
    slips = Slips()
    cached = variant.build(subject.model.family).cache.cached
    for index in range(watched if cached else 0):
        prompt = task.ask(index).prompt(subject.tokenizer)
        slips.watch(Generation(subject.model, subject.tokenizer, prompt, variant, max_tokens=subject.new_tokens))
    records = sorted(solve(subject, task, variant, range(count)), key=lambda record: record.index)
    return Finding(name, records, slips)


def table(findings: list[Finding]) -> Table:
    """Return the table of all variants. RPT includes the first pass over prompt and masks of every answer."""
    out = Table(box=None)
    for heading in ("cache", "accuracy", "minus no cache", "TPF", "RPT", "slips", "drift, nats"):
        out.add_column(heading, no_wrap=True)
    for finding in findings:
        total, change, slips = score(finding.records), finding.against(findings[0]), finding.slips
        minus = f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
        out.add_row(
            finding.name,
            f"{total.accuracy:.1%}",
            "reference" if finding is findings[0] else minus,
            f"{total.tokens_per_forward:.2f}",
            f"{total.rows_per_token:.1f}",
            f"{slips.share:.2%} of {slips.commits}" if slips.commits else "",
            f"{slips.mean_drift:.4f}" if slips.commits else "",
        )
    return out


def measure(
    count: Annotated[int, typer.Option(min=1, help="Validation problems for each variant.")] = 100,
    watched: Annotated[int, typer.Option(min=0, help="Problems in which slips are counted, which takes longer.")] = 25,
    only: Annotated[
        str, typer.Option(help="Regular expression for the names of variants to measure. No cache is always measured.")
    ] = "",
    block_size: Annotated[int | None, typer.Option(help="Tokens per block.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Maximum entropy in nats.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer.")] = CANVAS,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
) -> None:
    """Measure the variants, and print a table."""
    try:
        wanted = re.compile(only)
    except re.error as error:
        raise ConfigError(f"Invalid --only {only!r}: {error}. Use a regular expression.") from error
    task = Embedded(TaskOptions(), "llada", Kind(split="validation"))
    subject = EvalModel(*load(TEACHER), max_tokens=max_tokens)
    chosen = variants(Selective(threshold, block_size))
    findings = []
    for name, variant in chosen.items():
        if name == EXACT or wanted.search(name):
            findings.append(find(subject, task, name, variant, (count, min(watched, count))))
            Console(stderr=True).print(f"{name}: {score(findings[-1].records).accuracy:.1%}")
    Console(width=120).print(table(findings))
    if out is not None:
        write_text(out, json.dumps([finding.summary(findings[0]) for finding in findings], indent=2) + "\n")


if __name__ == "__main__":
    script(measure)
