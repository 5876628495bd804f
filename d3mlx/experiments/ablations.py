"""What each part of distillation does on the embedded task: one left out at a time, at equal steps, with three seeds.

    python -m d3mlx.experiments.ablations [--work runs/student] [--part 1/2]

Trains on the trajectories that the build of the student recorded, solves 500 held-out problems at three thresholds, and
writes `ablations.json` and the table of README.md. Whatever is interrupted goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from d3mlx.cli.script import script
from d3mlx.data.batches import CANVAS
from d3mlx.decoding.presets import D3LLM
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.run import distill
from d3mlx.distill.student import DISTILL, Work, of_round
from d3mlx.distill.trainer import CHECKPOINT, Bar
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Setting
from d3mlx.evaluate.results import Point, point_summary
from d3mlx.evaluate.run import Subject, attempt
from d3mlx.evaluate.statistics import paired_difference
from d3mlx.evaluate.tasks import task
from d3mlx.experiments.figures import RESULTS, ROOT, percent
from d3mlx.experiments.journal import Attempt, Part, finished, keep
from d3mlx.experiments.readme import around, put, table
from d3mlx.files import fingerprint, write_text
from d3mlx.loader import load
from d3mlx.version import versions

STEPS = 400
SEEDS = (0, 1, 2)
FIRST, COUNT = 200_000, 500
"""Held-out problems that neither the report nor anything else asks for."""

THRESHOLDS = (0.1, 0.2, 0.5)

WHOLE = replace(DISTILL, iters=STEPS, block_sizes=(16, 24, 32), save_every=STEPS // 2)

MEAN_RATIO = (DISTILL.min_mask_ratio + 3 * DISTILL.max_mask_ratio) / 4
"""Of the progressive schedule, over a run: ratios uniform above a bound that rises from the lowest to the highest."""

ARMS: Mapping[str, DistillConfig] = {
    "all parts": WHOLE,
    "random masks": replace(WHOLE, random_masks=True),
    "fixed mask ratio": replace(WHOLE, min_mask_ratio=MEAN_RATIO, max_mask_ratio=MEAN_RATIO),
    "fixed block size": replace(WHOLE, block_sizes=(24,)),
    "no entropy loss": replace(WHOLE, entropy_weight=0.0),
    "wrong answers too": replace(WHOLE, only_correct=False),
}


@dataclass(frozen=True)
class Trial:
    """An arm under a seed."""

    arm: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"{self.arm.replace(' ', '-')}-{self.seed}"


TRIALS = tuple(Trial(arm, seed) for seed in SEEDS for arm in ARMS)


def train(trial: Trial, config: DistillConfig, work: Work, out: Path) -> DistillConfig:
    """The weights of a trial, trained as far as they are not yet; its settings."""
    weights = trial.folder(out) / "weights"
    config = replace(of_round(work, 0, config), seed=trial.seed, adapter_path=str(weights))
    distill(config, lambda *_: Bar(), resume=(weights / CHECKPOINT).is_file())
    return config


def measure(trial: Trial, config: DistillConfig, out: Path, problems: range) -> None:
    """Solve the problems at every threshold, with the trained weights in float32."""
    subject, held_out = Subject(*load(config.model, config.adapter_path), max_tokens=CANVAS), task("embedded", "llada")
    attempts: dict[str, Attempt] = {
        f"{threshold:g}": partial(attempt, subject, held_out, D3LLM(threshold=threshold)) for threshold in THRESHOLDS
    }
    about = {"arm": trial.arm, "seed": trial.seed, "model": fingerprint(config.adapter_path)}
    keep(attempts, problems, (trial.folder(out) / Part().file, about))


def points(trial: Trial, out: Path, problems: range) -> list[Point] | None:
    """A trial's points, None where it is not finished."""
    names = {f"{threshold:g}": Setting("threshold", threshold) for threshold in THRESHOLDS}
    found = finished(trial.folder(out), names, problems)
    return None if found is None else [Point(names[name], list(one.records.values())) for name, one in found.items()]


def pooled(measured: Mapping[Trial, list[Point]], arm: str, index: int) -> list[bool]:
    """The verdicts of an arm at a threshold, over all seeds."""
    return [record.correct for seed in SEEDS for record in measured[Trial(arm, seed)][index].records]


def summarize(measured: Mapping[Trial, list[Point]], problems: range) -> dict[str, Any]:
    """Every trial, and every arm's paired difference to the whole one, over problems and seeds."""
    whole = next(iter(ARMS))
    arms = []
    for arm in ARMS:
        trials = [
            {"seed": seed, "points": [point_summary(point) for point in measured[Trial(arm, seed)]]} for seed in SEEDS
        ]
        differences = [
            asdict(paired_difference(pooled(measured, whole, i), pooled(measured, arm, i)))
            for i in range(len(THRESHOLDS))
        ]
        arms.append({"arm": arm, "trials": trials, "differences": differences})
    return {"steps": STEPS, "first": problems.start, "problems": len(problems), "versions": versions(), "arms": arms}


def cell(arm: dict[str, Any], index: int) -> str:
    """TPF and accuracy, means over seeds, the accuracy's range, the difference to the whole."""
    found = [trial["points"][index] for trial in arm["trials"]]
    accuracies = [100 * point["accuracy"] for point in found]
    change = arm["differences"][index]
    shown = f"{mean(point['tokens_per_forward'] for point in found):.2f} @ {mean(accuracies):.1f} "
    shown += f"({min(accuracies):.1f} to {max(accuracies):.1f})"
    if change["gained"] or change["lost"]:
        shown += f", {100 * change['value']:+.1f} {percent(change['low'], change['high'], '+')}"
    return shown


def text(results: dict[str, Any]) -> str:
    header = ["", *(f"threshold {threshold:g}" for threshold in THRESHOLDS)]
    rows = [[arm["arm"], *(cell(arm, i) for i in range(len(THRESHOLDS)))] for arm in results["arms"]]
    about = (
        f"Tokens per forward @ exact answers in %, means of {len(SEEDS)} seeds and their range, then the difference to "
        f"all parts with its 95 % interval, paired over problems and seeds; {results['steps']} steps of "
        f"{DISTILL.batch_size}, {results['problems']} held-out problems, decoder d3llm."
    )
    return f"{table(header, rows)}\n\n{about}"


def ablations(
    work: Annotated[Path, typer.Option(help="Work folder of the student's build, for its trajectories.")] = Path(
        "runs/student"
    ),
    out: Annotated[Path, typer.Option(help="Folder of weights and answers.")] = Path("runs/ablations"),
    part: Annotated[str, typer.Option(help="1/2 and 2/2 share the trials between two processes.")] = "1/1",
    count: Annotated[int, typer.Option(min=1, help="Problems to solve; with fewer, a quick look.")] = COUNT,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training; likewise.")] = STEPS,
) -> None:
    """Train and measure what is not done yet; once everything is, write the results and the table of README.md."""
    places, problems = Work(work), range(FIRST, FIRST + count)
    if not (places.teacher.is_dir() and places.trajectories(0).is_dir()):
        raise ConfigError(f"{work} holds no trajectories; build the student with --work {work} first.")
    whole = count == COUNT and steps == STEPS
    if whole:
        around(ROOT / "README.md", "ablations")
    for trial in Part.named(part).of(TRIALS):
        config = train(trial, replace(ARMS[trial.arm], iters=steps), places, out)
        measure(trial, config, out, problems)
    measured = {trial: found for trial in TRIALS if (found := points(trial, out, problems))}
    if len(measured) < len(TRIALS):
        typer.echo("The other parts are not finished; the last one to finish writes the results.")
        return
    results = summarize(measured, problems)
    typer.echo(text(results))
    if whole:
        write_text(RESULTS / "ablations.json", json.dumps(results, indent=1) + "\n")
        put(ROOT / "README.md", "ablations", text(results))


if __name__ == "__main__":
    script(ablations)
