"""The report and the ablations: what goes into their tables, from records of no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d3mlx.cli.script import script
from d3mlx.errors import ConfigError
from d3mlx.evaluate.aup import aup
from d3mlx.evaluate.records import Record, Setting
from d3mlx.evaluate.results import Point
from d3mlx.experiments import ablations, figures, report
from d3mlx.experiments.contestants import CONTESTANTS, FIRST, ONE_PER_STEP, Y_MAX, Contestant, Models, d3llm, fast
from d3mlx.experiments.journal import Attempt, Part, finished, keep

PROBLEMS = range(FIRST, FIRST + 100)


def record(index: int, correct: bool, forwards: int = 40) -> Record:
    return Record(index, correct, None, None, None, 0, 30, 40, forwards, 40 * forwards, 30, "")


def answers(right: int, forwards: int) -> list[Record]:
    return [record(index, index < FIRST + right, forwards) for index in PROBLEMS]


@pytest.fixture
def measured() -> dict[str, list[Point]]:
    """One per step 90 %; the others ever faster, the last point of each curve 10 points below."""
    found = {}
    for contestant in CONTESTANTS:
        count, quick = len(contestant.presets), 2 if contestant.model == "student" else 1
        found[contestant.name] = [
            Point(setting, answers(80 if count > 1 and i == count - 1 else 90, 40 // (quick * (i + 1))))
            for i, setting in enumerate(contestant.presets)
        ]
    return found


def test_parts_of_any_number_add_up(tmp_path: Path) -> None:
    solved: list[int] = []

    def attempt(index: int) -> Record:
        solved.append(index)
        return record(index, True)

    about = {"model": "none"}
    first = Part.named("1/2")
    keep({"a": attempt}, first.of(range(9)), (tmp_path / first.file, about))
    assert finished(tmp_path, ["a"], range(9)) is None
    keep({"a": attempt}, range(9), (tmp_path / Part().file, about))
    found = finished(tmp_path, ["a"], range(9))
    assert sorted(solved) == list(range(9))
    assert found is not None and list(found["a"].records) == list(range(9))
    assert finished(tmp_path, ["a", "b"], range(9)) is None and finished(tmp_path / "none", ["a"], range(9)) is None
    with pytest.raises(ConfigError, match="another measurement"):
        keep({"a": attempt}, range(9), (tmp_path / "part-2-of-2.jsonl", {"model": "other"}))


def test_results_keep_those_of_absent_models(measured: dict[str, list[Point]], tmp_path: Path) -> None:
    everything = Models(tmp_path, tmp_path, tmp_path, tmp_path)
    whole = report.summarize(everything, measured, PROBLEMS, {})
    assert [run["name"] for run in whole["runs"]] == [contestant.name for contestant in CONTESTANTS]
    again = report.summarize(Models(tmp_path, tmp_path), measured, PROBLEMS, whole)
    assert again == whole
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"another teacher")
    for before, teacher in (({}, tmp_path), (whole, tmp_path / "other")):
        fewer = report.summarize(Models(teacher, tmp_path), measured, PROBLEMS, before)
        assert {run["model"] for run in fewer["runs"]} == {"teacher", "student"}
    with pytest.raises(ConfigError, match="--teacher"):
        Models(tmp_path / "none", tmp_path).check()


def test_what_a_user_can_mend_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["report", "--teacher", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        script(report.report)
    assert end.value.code == f"Error: {tmp_path} holds no model; build it, or give another --teacher."
    assert not (tmp_path / "out").exists()


def test_the_last_part_to_finish_writes_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def attempts(contestant: Contestant, folder: Path) -> dict[str, Attempt]:
        return {setting.name: lambda index: record(index, True) for setting in contestant.presets}

    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    (root / "README.md").write_text("<!-- report -->\n<!-- /report -->\n")
    (tmp_path / "config.json").write_text("{}")
    for name, value in {"attempts_of": attempts, "COUNT": 4, "RESULTS": root, "ROOT": root}.items():
        monkeypatch.setattr(report, name, value)
    places = {"teacher": tmp_path, "student": tmp_path, "out": tmp_path / "out"}
    report.report(**places, count=2)
    report.report(**places, count=4, part="2/2")
    assert not (root / "report.json").exists()
    report.report(**places, count=4, part="1/2")
    results = json.loads((root / "report.json").read_text())
    assert results["problems"] == 4 and "+0.0" in (root / "README.md").read_text()
    assert (root / figures.PLOT).is_file()


def test_areas_begin_at_one_per_step_and_leave_bad_points_out(measured: dict[str, list[Point]], tmp_path: Path) -> None:
    results = report.summarize(Models(tmp_path, tmp_path), measured, PROBLEMS, {})
    areas = {run["name"]: run["aup"] for run in results["runs"]}
    start = (1.0, 90.0)
    assert areas[ONE_PER_STEP.name] == pytest.approx(90.0)
    curve = [(40 / (40 // (i + 1)), 90.0) for i in range(4)]
    assert areas[fast("teacher").name] == pytest.approx(aup([start, *curve], Y_MAX))
    assert areas[d3llm("teacher").name] < areas[d3llm("student").name]


def test_claims_take_the_most_parallel_point_that_is_right_enough(measured: dict[str, list[Point]]) -> None:
    student = measured[d3llm("student").name]
    first, second = figures.claims(measured)
    assert first["threshold"] == student[3].setting.value and first["times"] == pytest.approx(8.0)
    assert second["times"] == pytest.approx(8 / (40 / (40 // 3)))
    assert first["difference"]["value"] == 0
    hopeless = measured | {d3llm("student").name: [Point(point.setting, answers(50, 4)) for point in student]}
    assert figures.claims(hopeless)[0]["threshold"] is None
    assert "no threshold" in figures.sentence(figures.claims(hopeless)[0])


def test_table_and_plot_show_every_point(measured: dict[str, list[Point]], tmp_path: Path) -> None:
    results = report.summarize(Models(tmp_path, tmp_path, tmp_path, tmp_path), measured, PROBLEMS, {})
    (tmp_path / "README.md").write_text("<!-- report -->\n<!-- /report -->\n")
    (tmp_path / "docs").mkdir()
    figures.publish(results, tmp_path)
    written, drawn = (tmp_path / "README.md").read_text(), (tmp_path / figures.PLOT).read_text()
    for contestant in CONTESTANTS:
        assert written.count(f"| {contestant.name} |") == 1 and contestant.name in drawn
    assert written.count("\n| ") == 2 + sum(len(contestant.presets) for contestant in CONTESTANTS)
    assert figures.PLOT in written


def test_ablations_are_paired_over_problems_and_seeds() -> None:
    settings = [Setting("threshold", threshold) for threshold in ablations.THRESHOLDS]
    measured = {
        trial: [
            Point(setting, answers(90 - 10 * (trial.arm == "random masks") + trial.seed, 10)) for setting in settings
        ]
        for trial in ablations.TRIALS
    }
    results = ablations.summarize(measured, PROBLEMS)
    whole, worse = results["arms"][0], results["arms"][1]
    assert whole["differences"][0]["gained"] == whole["differences"][0]["lost"] == 0
    assert worse["differences"][0] | {"low": 0, "high": 0} == {
        "count": 300, "gained": 0, "lost": 30, "value": -0.1, "low": 0, "high": 0,
    }  # fmt: skip
    assert "4.00 @ 81.0 (80.0 to 82.0), -10.0 [" in ablations.text(results)
    assert "4.00 @ 91.0 (90.0 to 92.0) |" in ablations.text(results)


def test_fixed_ratio_is_the_mean_of_the_progressive_one() -> None:
    from d3mlx.distill.noise import lowest_ratio

    noise = ablations.WHOLE.noise
    bounds = [lowest_ratio(noise, step, 1000) for step in range(1000)]
    mean = sum((low + noise.highest) / 2 for low in bounds) / 1000
    assert pytest.approx(mean, abs=1e-3) == ablations.MEAN_RATIO
    for config in ablations.ARMS.values():
        config.check()
