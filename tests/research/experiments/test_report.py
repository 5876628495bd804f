"""The report and the ablations: their tables, made from invented records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from d3mlx.distill.masking import lowest_ratio
from d3mlx.errors import ConfigError
from d3mlx.evaluate.aup import aup
from d3mlx.evaluate.records import Record, Setting
from d3mlx.evaluate.results import OperatingPoint
from d3mlx.research.builds.student import Work
from d3mlx.research.experiments import ablations, claims, figures, report
from d3mlx.research.experiments.areas import area
from d3mlx.research.experiments.contestants import (
    CONTESTANTS,
    FIRST,
    ONE_PER_STEP,
    Y_MAX,
    Contestant,
    Models,
    d3llm,
    fast,
)
from d3mlx.research.experiments.journal import Attempt, Part, finished, solve_missing
from d3mlx.research.experiments.pages import DISTILLATION
from d3mlx.research.script import script

PROBLEMS = range(FIRST, FIRST + 100)


def record(index: int, correct: bool, forwards: int = 40) -> Record:
    return Record(index, correct, None, None, None, 0, 30, 40, forwards, 40 * forwards, 30, "")


def answers(correct: int, forwards: int) -> list[Record]:
    return [record(index, index < FIRST + correct, forwards) for index in PROBLEMS]


@pytest.fixture
def measured() -> dict[str, list[OperatingPoint]]:
    """Return curves in which every point is faster than the one before. The last point loses 10 points of 90 %."""
    measured = {}
    for contestant in CONTESTANTS:
        count, quick = len(contestant.presets), 2 if contestant.model == "student" else 1
        measured[contestant.name] = [
            OperatingPoint(setting, answers(80 if count > 1 and i == count - 1 else 90, 40 // (quick * (i + 1))))
            for i, setting in enumerate(contestant.presets)
        ]
    return measured


def test_parts_of_different_runs_add_up(tmp_path: Path) -> None:
    solved: list[int] = []

    def attempt(index: int) -> Record:
        solved.append(index)
        return record(index, True)

    about = {"model": "none"}
    first = Part.named("1/2")
    solve_missing({"a": attempt}, first.of(range(9)), tmp_path / first.file, about)
    assert finished(tmp_path, ["a"], range(9)) is None
    solve_missing({"a": attempt}, range(9), tmp_path / Part().file, about)
    solved_by_name = finished(tmp_path, ["a"], range(9))
    assert sorted(solved) == list(range(9))
    assert solved_by_name is not None and list(solved_by_name["a"].records) == list(range(9))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "part-2-of-2.jsonl").touch()
    assert finished(tmp_path / "empty", ["a"], range(9)) is None
    assert finished(tmp_path, ["a", "b"], range(9)) is None and finished(tmp_path / "none", ["a"], range(9)) is None
    with pytest.raises(ConfigError, match="another measurement"):
        solve_missing({"a": attempt}, range(9), tmp_path / "part-2-of-2.jsonl", {"model": "other"})


def test_results_keep_those_of_absent_models(measured: dict[str, list[OperatingPoint]], tmp_path: Path) -> None:
    all_models = Models(tmp_path, tmp_path, tmp_path, tmp_path)
    complete = report.summarize(all_models, measured, PROBLEMS, {})
    assert [run["name"] for run in complete["runs"]] == [contestant.name for contestant in CONTESTANTS]
    now = {name: points for name, points in measured.items() if name.startswith(("teacher", "student"))}
    assert report.summarize(Models(tmp_path, tmp_path), now, PROBLEMS, complete) == complete
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"another model")
    for before, teacher, student in (
        ({}, tmp_path, tmp_path),
        (complete, other, tmp_path),
        (complete, tmp_path, other),
        (complete | {"problems": 50}, tmp_path, tmp_path),
    ):
        fewer = report.summarize(Models(teacher, student), now, PROBLEMS, before)
        assert {run["model"] for run in fewer["runs"]} == {"teacher", "student"}
        assert {claim["model"] for claim in fewer["claims"]} == {"teacher"}
    with pytest.raises(ConfigError, match="--teacher"):
        Models(tmp_path / "none", tmp_path).check()


def test_a_folder_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["report", "--teacher", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        script(report.report)
    assert (
        end.value.code
        == f"Error: {tmp_path} does not contain a model. Build the model, or set --teacher to its folder."
    )
    assert not (tmp_path / "out").exists()


def test_the_last_part_to_finish_writes_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def attempts(contestant: Contestant, folder: Path) -> dict[str, Attempt]:
        return {setting.name: lambda index: record(index, True) for setting in contestant.presets}

    root = tmp_path / "checkout"
    (root / DISTILLATION).parent.mkdir(parents=True)
    (root / DISTILLATION).write_text("<!-- report -->\n<!-- /report -->\n")
    (tmp_path / "config.json").write_text("{}")
    for name, value in {"attempts_of": attempts, "COUNT": 4, "RESULTS": root, "ROOT": root}.items():
        monkeypatch.setattr(report, name, value)
    folders = {"teacher": tmp_path, "student": tmp_path, "out": tmp_path / "out"}
    report.report(**folders, count=2)
    report.report(**folders, count=4, part="2/2")
    assert not (root / "report.json").exists()
    report.report(**folders, count=4, part="1/2")
    results = json.loads((root / "report.json").read_text())
    assert results["problems"] == 4 and "+0.0" in (root / DISTILLATION).read_text()
    assert (root / figures.PLOT).is_file()


def test_areas_exclude_points_far_below_the_first(measured: dict[str, list[OperatingPoint]], tmp_path: Path) -> None:
    start = measured[ONE_PER_STEP.name][0]
    curve = [(40 / (40 // (i + 1)), 90.0) for i in range(4)]
    usual = measured[fast("teacher").name]
    alone, from_start = area(usual), area(usual, start)
    assert alone.value == pytest.approx(aup(curve, Y_MAX)) and alone.counted == 4
    assert from_start.value == pytest.approx(aup([(1.0, 90.0), *curve], Y_MAX)) and from_start.counted == 4
    assert area([start]) == area([start], start) and area([start]).value == pytest.approx(90.0)
    worse = [OperatingPoint(point.setting, answers(84, 20 - i)) for i, point in enumerate(usual)]
    assert area(worse).counted == 5 and area(worse, start).counted == 0
    assert area(worse, start).value == pytest.approx(90.0)
    results = report.summarize(Models(tmp_path, tmp_path), measured, PROBLEMS, {})
    assert "4 of 5 points" in figures.points(results)
    # In these records, two decoders of the teacher are equal.
    assert figures.text(results).count("This is not the order of the paper") == 2
    next(run for run in results["runs"] if run["name"] == fast("teacher").name)["aup"]["value"] -= 1
    assert figures.text(results).count("This is not the order of the paper") == 1


def test_intervals_of_areas_come_from_resampled_problems(measured: dict[str, list[OperatingPoint]]) -> None:
    alone = area(measured[ONE_PER_STEP.name])
    # The standard error of 90 % of 100 problems is 3 points.
    assert 90 - 8 < alone.low < 90 - 4 and 90 + 4 < alone.high < 90 + 8
    perfect = area([OperatingPoint(Setting(), answers(100, 40))])
    assert (perfect.low, perfect.value, perfect.high) == (100.0, 100.0, 100.0)


def test_claims_take_the_most_parallel_point_that_is_accurate_enough(measured: dict[str, list[OperatingPoint]]) -> None:
    student = measured[d3llm("student").name]
    first, _, usual, _, control, *own = claims.claims(measured)
    assert [claim["student"] for claim in own] == ["selective"] * 4
    assert first["threshold"] == student[3].setting.value and first["times"] == pytest.approx(8.0)
    assert usual["times"] == pytest.approx(8 / (40 / (40 // 3))) and usual["rows"] == pytest.approx(1 / usual["times"])
    assert first["difference"]["value"] == 0
    # The control's last point is 10 points below, so the student's last one is close enough.
    assert control["threshold"] == student[4].setting.value
    hopeless = measured | {d3llm("student").name: [OperatingPoint(point.setting, answers(50, 4)) for point in student]}
    assert claims.claims(hopeless)[0]["threshold"] is None
    assert "| none |" in claims.text(claims.claims(hopeless))


def test_table_and_plot_show_every_point(measured: dict[str, list[OperatingPoint]], tmp_path: Path) -> None:
    results = report.summarize(Models(tmp_path, tmp_path, tmp_path, tmp_path), measured, PROBLEMS, {})
    (tmp_path / DISTILLATION).parent.mkdir(parents=True)
    (tmp_path / DISTILLATION).write_text("<!-- report -->\n<!-- /report -->\n")
    figures.publish(results, tmp_path)
    written, drawn = (tmp_path / DISTILLATION).read_text(), (tmp_path / figures.PLOT).read_text()
    points = figures.points(results)
    assert points in written
    for contestant in CONTESTANTS:
        assert points.count(f"| {contestant.name} |") == 1 and contestant.name in drawn
    assert points.count("\n| ") == 1 + sum(len(contestant.presets) for contestant in CONTESTANTS)
    assert "(../report.svg)" in written
    assert (
        "The autoregressive model is correct in 90.0 %. The most accurate diffusion decoder is correct in 90" in written
    )


@pytest.fixture
def plan(tmp_path: Path) -> ablations.Plan:
    work = Work(tmp_path / "work")
    work.teacher.mkdir(parents=True)
    work.trajectories(0).mkdir()
    return ablations.Plan(work, tmp_path / "out", problems=PROBLEMS)


def test_ablations_compare_arms_under_the_same_seed(plan: ablations.Plan) -> None:
    def three(correct: int) -> list[OperatingPoint]:
        return [OperatingPoint(setting, answers(correct, 10)) for setting in ablations.DECODERS]

    measured = {
        trial: three(90 - (10 + trial.seed) * (trial.arm == "random masks") + trial.seed) for trial in ablations.TRIALS
    }
    results = ablations.summarize(plan, measured, three(70))
    shown = ablations.text(results)
    assert "| the teacher | 4.00 @ 70.0 |" in shown
    assert "| all parts | 4.00 @ 91.0 |" in shown
    assert "| random masks | 4.00 @ 80.0, -11.0 (-12.0 to -10.0) |" in shown


def test_ablations_never_mix_measurements(plan: ablations.Plan) -> None:
    trial = ablations.TRIALS[0]
    folder, about = trial.folder(plan.out), {"arm": trial.arm, "seed": trial.seed}
    attempts: dict[str, Attempt] = {s.name: lambda index: record(index, True) for s in ablations.DECODERS}
    solve_missing(attempts, PROBLEMS, folder / Part().file, plan.about | about)
    points = ablations.points(plan, folder, about)
    assert points is not None and [point.setting for point in points] == list(ablations.DECODERS)
    assert ablations.points(plan, plan.out / "none", about) is None
    with pytest.raises(ConfigError, match="another measurement"):
        ablations.points(replace(plan, steps=10), folder, about)


def test_an_arm_changes_only_the_part_in_its_name(plan: ablations.Plan) -> None:
    configs = {arm: vars(plan.config(ablations.Trial(arm, 1))) for arm in ablations.ARMS}
    all_parts = configs.pop("all parts")
    settings = all_parts.keys() - {"adapter_path"}
    changed = [{name for name in settings if config[name] != all_parts[name]} for config in configs.values()]
    assert changed == [
        {"random_masks"},
        {"min_mask_ratio", "max_mask_ratio"},
        {"block_sizes"},
        {"entropy_weight"},
        {"only_correct"},
    ]
    assert all_parts["seed"] == 1 and all_parts["iters"] == ablations.STEPS


def test_fixed_ratio_is_the_mean_of_the_progressive_one() -> None:
    masking = ablations.ALL_PARTS.masking
    bounds = [lowest_ratio(masking, step, 1000) for step in range(1000)]
    mean = sum((low + masking.highest) / 2 for low in bounds) / 1000
    assert pytest.approx(mean, abs=1e-3) == ablations.MEAN_RATIO
    for config in ablations.ARMS.values():
        config.check()
