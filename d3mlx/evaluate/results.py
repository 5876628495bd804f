"""Finished runs: read from their folders, compared on common problems, as curves, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.aup import aup, near
from d3mlx.evaluate.plot import Curve, Mark, draw
from d3mlx.evaluate.records import Record, Score, Setting, read_points, score
from d3mlx.evaluate.statistics import Difference, paired_difference

XAxis = Literal["tpf", "rpt"]
HOW_ASKED = ("num_fewshot", "shots_data_fingerprint", "chat_template", "stop", "sampling", "max_tokens")
X_NAMES = {"tpf": "tokens per forward", "rpt": "rows per token"}


@dataclass(frozen=True)
class OperatingPoint:
    """A setting of the decoder and how it did."""

    setting: Setting
    records: Sequence[Record]

    @property
    def score(self) -> Score:
        return score(self.records)

    def on(self, indices: set[int]) -> OperatingPoint:
        """The same point, measured on some of its problems."""
        return OperatingPoint(self.setting, [record for record in self.records if record.index in indices])


@dataclass(frozen=True)
class Run:
    """One evaluation: its name, its configuration, its points."""

    name: str
    config: dict[str, Any]
    points: Sequence[OperatingPoint]

    @property
    def best(self) -> float:
        """The best accuracy of a point, in percent."""
        return max(100 * point.score.accuracy for point in self.points)

    def by_parallelism(self) -> list[OperatingPoint]:
        return sorted(self.points, key=lambda point: point.score.tokens_per_forward)


@dataclass(frozen=True)
class Area:
    """AUP with the y-max it is relative to, in percent; `why` says why there is none.

    left_out: the points that it does not count, more than 5 points below the least parallel one.
    """

    y_max: float
    value: float | None
    why: str | None = None
    left_out: int = 0


def area(run: Run, y_max: float) -> Area:
    """Return the AUP of a run."""
    if not any(point.score.correct for point in run.points):
        return Area(y_max, None, "No AUP: no answer was right.")
    points = [(point.score.tokens_per_forward, 100 * point.score.accuracy) for point in run.points]
    try:
        return Area(y_max, aup(points, y_max), left_out=len(points) - len(near(points)))
    except ConfigError as error:
        return Area(y_max, None, str(error))


def read_run(folder: Path) -> Run:
    """Return the evaluation in a folder, finished or not. Raises DataError."""
    config, points = read_points(folder)
    measured = [OperatingPoint(setting, records) for setting, records in points.items() if records]
    if not measured:
        raise DataError(f"{folder} has no answers yet; run its evaluation first.")
    return Run(folder.resolve().name, config, measured)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the evaluations in folders, with paths as names if two folders have the same name."""
    runs = [read_run(folder) for folder in folders]
    if len({run.name for run in runs}) == len(runs):
        return runs
    return [replace(run, name=str(folder)) for run, folder in zip(runs, folders, strict=True)]


def on_common_problems(runs: Sequence[Run]) -> list[Run]:
    """The runs, each point measured on the problems that all points have.

    Raises ConfigError for runs on different tasks or data, or without a common problem.
    """
    for key in ("task", "data_fingerprint"):
        if any(run.config.get(key) != runs[0].config.get(key) for run in runs):
            raise ConfigError("The runs solve different tasks or read different data, so they cannot be compared.")
    common = set.intersection(*({record.index for record in p.records} for run in runs for p in run.points))
    if not common:
        raise ConfigError("The runs have no problem in common; let the unfinished one go on first.")
    return [replace(run, points=[point.on(common) for point in run.points]) for run in runs]


def asked_apart(runs: Sequence[Run]) -> list[str]:
    """Entries of the configuration, apart from model and decoder, in which the runs asked differently."""
    return [name for name in HOW_ASKED if any(run.config.get(name) != runs[0].config.get(name) for run in runs)]


def difference(reference: OperatingPoint, point: OperatingPoint) -> Difference:
    """Accuracy of a point minus that of the reference; both must have the same problems."""
    before = {record.index: record.correct for record in reference.records}
    pairs = [(before[record.index], record.correct) for record in point.records]
    return paired_difference([then for then, _ in pairs], [now for _, now in pairs])


def picture(runs: Sequence[Run], areas: Sequence[Area], x: XAxis) -> str:
    """Return accuracy over parallelism as SVG, one curve per run."""
    curves = []
    for run, run_area in zip(runs, areas, strict=True):
        marks = [mark(point, x) for point in run.points if point.score.tokens]
        name = run.name if run_area.value is None else f"{run.name} (AUP {run_area.value:.1f})"
        curves.append(Curve(name, marks))
    if not any(curve.marks for curve in curves):
        raise ConfigError("No point has a single token, so there is nothing to plot.")
    return draw([curve for curve in curves if curve.marks], X_NAMES[x], str(runs[0].config["task"]))


def mark(point: OperatingPoint, x: XAxis) -> Mark:
    """Return a point as a mark of the picture, its accuracy in percent."""
    totals = point.score
    low, high = totals.interval
    parallelism = totals.tokens_per_forward if x == "tpf" else totals.rows_per_token
    label = "" if point.setting.value is None else f"{point.setting.value:g}"
    return Mark(parallelism, 100 * totals.accuracy, 100 * low, 100 * high, label)


def summary(run: Run, run_area: Area) -> dict[str, Any]:
    """Return a run as JSON: accuracies as shares, AUP as published (percent)."""
    return {
        "name": run.name,
        "config": run.config,
        "aup": run_area.value,
        "y_max": run_area.y_max,
        "points": [point_summary(point) for point in run.points],
    }


def point_summary(point: OperatingPoint) -> dict[str, Any]:
    """Return a point as JSON; accuracies are shares."""
    totals = point.score
    return {
        "setting": asdict(point.setting),
        **asdict(totals),
        "accuracy": totals.accuracy,
        "interval": list(totals.interval),
        "strict_accuracy": totals.strict_accuracy,
        "tokens_per_forward": totals.tokens_per_forward,
        "rows_per_token": totals.rows_per_token if totals.tokens else None,
    }
