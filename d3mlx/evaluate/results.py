"""Results of runs: reading folders, comparison on common problems, curves, JSON."""

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
COMPARED = ("num_fewshot", "shots_data_fingerprint", "chat_template", "stop", "sampling", "max_tokens")
X_NAMES = {"tpf": "tokens per forward", "rpt": "rows per token"}


@dataclass(frozen=True)
class OperatingPoint:
    """A setting of the decoder and the records of its answers."""

    setting: Setting
    records: Sequence[Record]

    @property
    def score(self) -> Score:
        """Return the totals over the records."""
        return score(self.records)

    def on(self, indices: set[int]) -> OperatingPoint:
        """Return the point with only the records of some problems."""
        return OperatingPoint(self.setting, [record for record in self.records if record.index in indices])


@dataclass(frozen=True)
class Run:
    """An evaluation: its name, its configuration, and its points."""

    name: str
    config: dict[str, Any]
    points: Sequence[OperatingPoint]

    @property
    def best(self) -> float:
        """Return the best accuracy of all points, in percent."""
        return max(100 * point.score.accuracy for point in self.points)

    def by_parallelism(self) -> list[OperatingPoint]:
        """Return the points, ascending by tokens per forward."""
        return sorted(self.points, key=lambda point: point.score.tokens_per_forward)


@dataclass(frozen=True)
class Area:
    """The AUP of a run.

    y_max: best accuracy in percent. value: None if AUP is not defined; then `why` is the reason. left_out: number of
    points that do not count: their accuracy is more than 5 percentage points below that of the least parallel point.
    """

    y_max: float
    value: float | None
    why: str | None = None
    left_out: int = 0


def area(run: Run, y_max: float) -> Area:
    """Return the AUP of a run."""
    if not any(point.score.correct for point in run.points):
        return Area(y_max, None, "No AUP: no answer is correct.")
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
        raise DataError(f"{folder} contains no answers yet. Run its evaluation first.")
    return Run(folder.resolve().name, config, measured)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the evaluations in folders. Their names are paths if two folders have the same name."""
    runs = [read_run(folder) for folder in folders]
    if len({run.name for run in runs}) == len(runs):
        return runs
    return [replace(run, name=str(folder)) for run, folder in zip(runs, folders, strict=True)]


def on_common_problems(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with only the problems that all points have in common.

    Raises ConfigError for different tasks or data, or without a common problem.
    """
    for key in ("task", "data_fingerprint"):
        if any(run.config.get(key) != runs[0].config.get(key) for run in runs):
            raise ConfigError("Cannot compare the runs: their tasks or data differ.")
    common = set.intersection(*({record.index for record in p.records} for run in runs for p in run.points))
    if not common:
        raise ConfigError("The runs have no problem in common. Continue the unfinished run first.")
    return [replace(run, points=[point.on(common) for point in run.points]) for run in runs]


def different_settings(runs: Sequence[Run]) -> list[str]:
    """Return the entries of the configuration that differ between runs, apart from model and decoder."""
    return [name for name in COMPARED if any(run.config.get(name) != runs[0].config.get(name) for run in runs)]


def difference(reference: OperatingPoint, point: OperatingPoint) -> Difference:
    """Return the accuracy of a point minus that of the reference. Both must have the same problems."""
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
        raise ConfigError("Cannot plot the runs: their answers have no tokens.")
    return draw([curve for curve in curves if curve.marks], X_NAMES[x], str(runs[0].config["task"]))


def mark(point: OperatingPoint, x: XAxis) -> Mark:
    """Return a point as a mark of the picture, with accuracies in percent."""
    totals = point.score
    low, high = totals.interval
    parallelism = totals.tokens_per_forward if x == "tpf" else totals.rows_per_token
    label = "" if point.setting.value is None else f"{point.setting.value:g}"
    return Mark(parallelism, 100 * totals.accuracy, 100 * low, 100 * high, label)


def summary(run: Run, run_area: Area) -> dict[str, Any]:
    """Return a run as JSON. Accuracies are shares. AUP and y_max use percent, as published."""
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
