"""Recording, training and fusing the built-in model through the real entry point."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from d3mlx import load
from d3mlx.cli.render.training import LivePanel
from d3mlx.distill.trainer import Report
from d3mlx.distill.trajectory_store import read_store


def test_record_train_fuse_generate(d3mlx: Any, tmp_path: Path) -> None:
    recorded, adapters, fused = (str(tmp_path / name) for name in ("recorded", "adapters", "fused"))
    status, _, err = d3mlx("trajectories", recorded, "--limit", "2", "--max-tokens", "8", "--shard", "1")
    assert (status, err) == (0, f"2 trajectories in {recorded}.\n")
    again, _, _ = d3mlx("trajectories", recorded, "--limit", "2", "--max-tokens", "8", "--shard", "1")
    assert again == 0
    assert len(list(Path(recorded).glob("rows-*.safetensors"))) == 2

    config = tmp_path / "distill.toml"
    config.write_text('max-length = 64\nbatch-size = 1\nrank = 2\nlog-every = 1\nselection = "segment"\n')
    common = ["--data", recorded, "--adapter-path", adapters, "--config", str(config), "--learning-rate", "0.01"]
    status, out, _ = d3mlx("distill", *common, "--estimate")
    assert (status, out[:21]) == (0, "Training needs about ")
    options = ["--iters", "2", "--grad-accumulation-steps", "1"]
    status, _, err = d3mlx("distill", *common, *options)
    assert status == 0, err
    lines = err.splitlines()[1:]
    assert [line.split(":")[0] for line in lines[:-1]] == ["step 1/2", "step 2/2"]
    assert lines[-1] == f"The adapters are in {adapters}."
    status, _, err = d3mlx("distill", *common, *options, "--resume")
    assert (status, "already complete" in err.splitlines()[-1]) == (0, True)
    effective = json.loads((tmp_path / "adapters" / "distill.json").read_text())
    assert (effective["rank"], effective["selection"], effective["iters"]) == (2, "segment", 2)
    status, _, err = d3mlx("distill", *common, *options)
    assert (status, "--resume" in err, err.count("\n")) == (1, True, 1)

    status, _, err = d3mlx("fuse", "--adapter-path", adapters, "--save-path", fused)
    assert (status, "28 adapted layers" in err, "Quantization adds an error" in err) == (0, True, True)
    model, tokenizer = load(fused)
    assert model.args.max_new_tokens == 64
    assert tokenizer.chat_template is not None
    status, out, _ = d3mlx("generate", "hi", "--adapter-path", adapters, "--max-tokens", "4", "--plain")
    assert (status, out[-1:]) == (0, "\n")


def trajectories(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the trajectories of a folder by row, each row once."""
    found = [vars(trajectory) for trajectory in read_store(folder)]
    rows = {entry["row"]: {name: np.array(value).tolist() for name, value in entry.items()} for entry in found}
    assert len(rows) == len(found)
    return rows


@pytest.mark.parametrize("options", [[], ["--check", "--early-stop"]], ids=" ".join)
def test_trajectories_do_not_depend_on_the_batch_size(
    d3mlx: Any, llada: str, tmp_path: Path, options: list[str]
) -> None:
    """With --check a question with an answer takes five attempts here, and one without takes one."""
    data = tmp_path / "prompts.jsonl"
    answers: list[dict[str, str]] = [{"answer": "12"}, {}, {}, {"answer": "x"}, {}]
    data.write_text("".join(json.dumps({"prompt": f"Row {i}"} | answer) + "\n" for i, answer in enumerate(answers)))
    common = ["--model", llada, "--data", str(data), "--max-tokens", "12", "--block-size", "5", *options]
    runs = []
    for size in ("1", "3"):
        status, _, err = d3mlx("trajectories", str(tmp_path / size), *common, "--batch-size", size)
        assert (status, err[:15]) == (0, "5 trajectories ")
        runs.append(trajectories(tmp_path / size))
    assert runs[0] == runs[1]
    assert sorted(runs[0]) == list(range(5))
    expected = [5, 1, 1, 5, 1] if options else [1] * 5
    assert [runs[0][row]["attempts"] for row in range(5)] == expected


def test_a_batch_of_nothing_is_refused(d3mlx: Any, tmp_path: Path) -> None:
    status, out, err = d3mlx("trajectories", str(tmp_path / "out"), "--batch-size", "0")
    assert (status, out) == (2, "")
    assert "'--batch-size': Input should be greater than or equal to 1" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["distill"], "--data"),
        (["distill", "--data", "nowhere"], "nowhere is neither a file nor a folder"),
        (["distill", "--data", "embedded", "--objective", "sft", "--max-length", "999"], "at most the model's context"),
        (["distill", "--data", "embedded", "--preset", "gpt"], "preset must be one of"),
        (["distill", "--data", "embedded", "--config", "none.yaml"], "none.yaml does not exist"),
        (["distill", "--data", "embedded", "--resume"], "no run to resume"),
        (["trajectories", "out", "--data", "none.jsonl"], "File none.jsonl does not exist"),
        (["trajectories", "out", "--import", "x.jsonl", "--check"], "Run without --data and without options"),
        (["trajectories", "out", "--import", "x.jsonl", "--limit", "3"], "Run without --limit"),
        (["distill", "--data", "embedded"], "Use --objective sft"),
        (["distill", "--data", "embedded", "--scale", "nan"], "scale must be between 0 and 1,000,000, not nan"),
        (["eval", "--task", "embedded", "--plot", "-"], "--plot cannot write"),
        (["fuse", "--adapter-path", "none"], "not an adapter folder"),
    ],
)
def test_mistakes_are_one_sentence(
    d3mlx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], culprit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = d3mlx(*arguments)
    last = err.splitlines()[-1]
    assert (status, last.startswith("Error: "), culprit in last) == (1, True, True), err
    assert not list(tmp_path.iterdir())


def test_the_live_panel_shows_every_figure() -> None:
    panel, console = LivePanel("d3llm on 5 examples"), Console(width=120, file=io.StringIO())
    panel.begin(0, 10)
    for step in range(1, 4):
        terms, figures = {"ce": 2.5, "entropy_rev": 0.25}, {"mask_ratio": 0.4, "block_size": 24.0}
        panel.losses.append(1.0 / step)
        report = Report(step, 1.0 / step, terms, figures, norm=0.5, rate=2e-5, sequences=4, tokens=400)
        console.print(panel.frame(report))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in (
        "ce 2.5000",
        "entropy rev 0.2500",
        "mask ratio 0.4",
        "block size 24",
        "2.00e-05",
        "peak memory",
        "█▃▁",
    ):
        assert shown in text
