"""Measure the effect of each part of distillation on the embedded task: one change at a time, equal steps, three seeds.

    python -m d3mlx.research.experiments.ablations [--work runs/student] [--part 1/2]

The script trains on the trajectories that the build of the student recorded. It solves 500 held-out problems at three
thresholds, and writes `ablations.json` and the table of docs/results/ablations.md. The same command continues an
interrupted run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from d3mlx.checkpoints.loader import load
from d3mlx.cli.render.training import watcher
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.run import distill
from d3mlx.distill.trainer import CHECKPOINT
from d3mlx.distill.trajectory_store import read_store
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Setting
from d3mlx.evaluate.results import OperatingPoint, point_summary
from d3mlx.evaluate.run import EvalModel, attempt
from d3mlx.evaluate.tasks import task
from d3mlx.files import fingerprint, write_text
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.student import DISTILL, Work, of_round
from d3mlx.research.experiments.figures import RESULTS, ROOT
from d3mlx.research.experiments.journal import Attempt, Part, finished, read, solve_missing
from d3mlx.research.experiments.pages import ABLATIONS, around, put, table
from d3mlx.research.script import script
from d3mlx.version import versions

STEPS = 400
SEEDS = (0, 1, 2)
FIRST, COUNT = 200_000, 500
"""Held-out problems of this experiment only."""

THRESHOLDS = (0.1, 0.2, 0.5)

ALL_PARTS = replace(DISTILL, iters=STEPS, block_sizes=(16, 16, 24, 24, 32), save_every=STEPS // 2)
"""All parts. With about 2,800 trajectories, blocks grow during the first four of the seven or eight epochs."""

MEAN_RATIO = (DISTILL.min_mask_ratio + 3 * DISTILL.max_mask_ratio) / 4
"""Mean mask ratio of the progressive schedule over a run.

Its ratios are uniform between a rising bound and the maximum. The bound rises from the minimum to the maximum.
"""

ARMS: Mapping[str, DistillConfig] = {
    "all parts": ALL_PARTS,
    "random masks": replace(ALL_PARTS, random_masks=True),
    f"mask ratio always {MEAN_RATIO:g}": replace(ALL_PARTS, min_mask_ratio=MEAN_RATIO, max_mask_ratio=MEAN_RATIO),
    "blocks always of 32": replace(ALL_PARTS, block_sizes=(32,)),
    "no entropy loss": replace(ALL_PARTS, entropy_weight=0.0),
    "wrong answers too": replace(ALL_PARTS, only_correct=False),
}


@dataclass(frozen=True)
class Trial:
    """One training: an arm with a seed."""

    arm: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"{self.arm.replace(' ', '-')}-{self.seed}"


TRIALS = tuple(Trial(arm, seed) for seed in SEEDS for arm in ARMS)

DECODERS = {Setting("threshold", threshold): D3LLM(threshold=threshold) for threshold in THRESHOLDS}


@dataclass(frozen=True)
class Plan:
    """Common settings of all trials. work: of the student's build. out: folder of the results."""

    work: Work
    out: Path
    steps: int = STEPS
    problems: range = range(FIRST, FIRST + COUNT)

    def config(self, trial: Trial) -> DistillConfig:
        config = of_round(self.work, 0, ARMS[trial.arm])
        weights = str(trial.folder(self.out) / "weights")
        return replace(config, iters=self.steps, seed=trial.seed, adapter_path=weights)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Return everything that the figures of a trial depend on, except its arm and seed."""
        return {
            "steps": self.steps,
            "teacher": fingerprint(self.work.teacher),
            "trajectories": sum(1 for _ in read_store(self.work.trajectories(0))),
            "decoders": {setting.name: repr(preset.build("llada")) for setting, preset in DECODERS.items()},
        }


def train(config: DistillConfig) -> None:
    """Train, or continue from the checkpoint."""
    distill(config, watcher, resume=(Path(config.adapter_path) / CHECKPOINT).is_file())


def measure(plan: Plan, folder: Path, about: dict[str, Any], weights: str | None) -> None:
    """Solve the problems at every threshold in float32. weights: adapter folder, or None for the teacher itself."""
    subject, held_out = EvalModel(*load(plan.work.teacher, weights), max_tokens=CANVAS), task("embedded", "llada")
    attempts: dict[str, Attempt] = {
        setting.name: partial(attempt, subject, held_out, preset) for setting, preset in DECODERS.items()
    }
    solve_missing(attempts, plan.problems, folder / Part().file, plan.about | about)


def points(plan: Plan, folder: Path, about: dict[str, Any]) -> list[OperatingPoint] | None:
    """Return a trial's points, or None if it is not finished. Raises ConfigError if another plan measured them."""
    settings = {setting.name: setting for setting in DECODERS}
    answers = finished(folder, settings, plan.problems)
    if answers is None:
        return None
    if read(folder)[0] != plan.about | about:
        raise ConfigError(f"{folder} contains another measurement. Remove it, or choose another --out.")
    return [OperatingPoint(settings[name], list(solved.records.values())) for name, solved in answers.items()]


def arm_summary(arm: str, measured: Mapping[Trial, list[OperatingPoint]]) -> dict[str, Any]:
    """Return an arm's trials, and their accuracies minus those of all parts, by threshold and seed."""
    trials = [measured[Trial(arm, seed)] for seed in SEEDS]
    all_parts = [measured[Trial(next(iter(ARMS)), seed)] for seed in SEEDS]
    changes = [
        [now[i].score.accuracy - then[i].score.accuracy for now, then in zip(trials, all_parts, strict=True)]
        for i in range(len(THRESHOLDS))
    ]
    return {"arm": arm, "trials": [[point_summary(point) for point in trial] for trial in trials], "changes": changes}


def summarize(
    plan: Plan, measured: Mapping[Trial, list[OperatingPoint]], teacher: list[OperatingPoint]
) -> dict[str, Any]:
    return {
        **plan.about,
        "first": plan.problems.start,
        "problems": len(plan.problems),
        "versions": versions(),
        "before": [point_summary(point) for point in teacher],
        "arms": [arm_summary(arm, measured) for arm in ARMS],
    }


def cell(arm: dict[str, Any], index: int) -> str:
    """Return TPF and accuracy as means over seeds, and the change of accuracy with its range over seeds."""
    points_of_seeds = [trial[index] for trial in arm["trials"]]
    shown = f"{mean(point['tokens_per_forward'] for point in points_of_seeds):.2f} @ "
    shown += f"{100 * mean(point['accuracy'] for point in points_of_seeds):.1f}"
    changes = [100 * change for change in arm["changes"][index]]
    if arm["arm"] == next(iter(ARMS)):
        return shown
    return f"{shown}, {mean(changes):+.1f} ({min(changes):+.1f} to {max(changes):+.1f})"


def text(results: dict[str, Any]) -> str:
    header = ["", *(f"threshold {threshold:g}" for threshold in THRESHOLDS)]
    before = [f"{point['tokens_per_forward']:.2f} @ {100 * point['accuracy']:.1f}" for point in results["before"]]
    rows = [[arm["arm"], *(cell(arm, i) for i in range(len(THRESHOLDS)))] for arm in results["arms"]]
    about = (
        f"A cell shows tokens per forward @ correct answers in %, as means of {len(SEEDS)} seeds. Then it shows the "
        'difference of the correct answers to "all parts" with the same seed, in points: mean and range. At a fixed '
        "threshold, a change affects both tokens and accuracy.\n\n"
        f"Every run takes {results['steps']} steps of {DISTILL.batch_size} sequences, and learns from the correct "
        f"answers among {results['trajectories']:,}. Then it solves {results['problems']} held-out problems with "
        "decoder d3llm in float32. The logits are as trained.\n\n"
        "Random masks also reveal end tokens at random. A constant mask ratio never masks a full block. Wrong answers "
        "belong to problems that the teacher answered incorrectly five times."
    )
    intro = "Each row changes one part of the distillation, at equal steps:"
    return f"{intro}\n\n{table(header, [['the teacher', *before], *rows])}\n\n{about}"


def ablations(
    work: Annotated[Path, typer.Option(help="Work folder of the student's build, with its trajectories.")] = Path(
        "runs/student"
    ),
    out: Annotated[Path, typer.Option(help="Folder of weights and answers.")] = Path("runs/ablations"),
    part: Annotated[
        str, typer.Option(help="Part of the trials: 1/2 and 2/2 share the work between two processes.")
    ] = "1/1",
    count: Annotated[
        int, typer.Option(min=1, help="Problems to solve. With fewer than the default, the page stays as it is.")
    ] = COUNT,
    steps: Annotated[
        int, typer.Option(min=1, help="Training steps. With another number than the default, the page stays as it is.")
    ] = STEPS,
) -> None:
    """Train and measure what is missing. The last run also writes the results and the page."""
    plan, mine = Plan(Work(work), out, steps, range(FIRST, FIRST + count)), Part.named(part)
    if not (plan.work.teacher.is_dir() and plan.work.trajectories(0).is_dir()):
        raise ConfigError(f"{work} does not contain trajectories. Build the student with --work {work} first.")
    complete = count == COUNT and steps == STEPS
    if complete:
        around(ROOT / ABLATIONS, "ablations")
    for trial in mine.of(TRIALS):
        config = plan.config(trial)
        train(config)
        measure(plan, trial.folder(out), asdict(trial), config.adapter_path)
    if mine.number == 1:
        measure(plan, out / "teacher", {}, None)
    teacher = points(plan, out / "teacher", {})
    measured = {
        trial: trial_points for trial in TRIALS if (trial_points := points(plan, trial.folder(out), asdict(trial)))
    }
    if teacher is None or len(measured) < len(TRIALS):
        typer.echo("Other parts are not finished. The last part to finish writes the results.")
        return
    results = summarize(plan, measured, teacher)
    typer.echo(text(results))
    if complete:
        write_text(RESULTS / "ablations.json", json.dumps(results, indent=1) + "\n")
        put(ROOT / ABLATIONS, "ablations", text(results))


if __name__ == "__main__":
    script(ablations)
