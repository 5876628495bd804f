"""`d3mlx eval` and `d3mlx compare` through the real entry point."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.builders import LLADA_CONFIG, llada_weights
from tests.cli.conftest import COMMAND
from tests.cli.terminal import read_terminal
from tests.loading.test_peft import write_peft

SHORT = ["--count", "3", "--max-tokens", "12"]
GSM = '{"question": "How many?", "answer": "#### 42"}\n{"question": "Which?", "answer": "#### 1,000"}\n'


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the records of a file in the order in which they were written."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def figures(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the records of each point, sorted by problem: they are written as problems are solved."""
    return {file.stem: sorted(lines_of(file), key=lambda row: row["index"]) for file in folder.glob("*.jsonl")}


def test_a_table_a_curve_and_every_figure(d3mlx: Any, tmp_path: Path) -> None:
    out, plot, numbers = tmp_path / "run", tmp_path / "run.svg", tmp_path / "run.json"
    options = ["--thresholds", "0.1,inf", "--out", str(out), "--plot", str(plot), "--json", str(numbers)]
    done = d3mlx("eval", *SHORT, *options, "--block-size", "8", "--y-max", "90")
    assert (done.status, done.err) == (0, "")
    head, *lines, last = done.out.splitlines()
    assert head.split() == ["threshold", "accuracy", "95", "%", "TPF", "RPT", "forwards"]
    assert [line.split()[0] for line in lines] == ["0.1", "inf"]
    assert re.fullmatch(r"AUP: [\d.]+ with y-max 90.00 % \(as given\)|AUP is not defined: .*|No AUP: .*", last)
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")
    written = json.loads(numbers.read_text())
    assert written["y_max"] == 90
    assert written["config"]["options"] == {"block_size": 8}
    assert written["policies"]["threshold-0.1"]["acceptance"]["threshold"] == 0.1
    assert written["policies"]["threshold-0.1"]["schedule"]["block_size"] == 8
    records = figures(out)
    assert set(records) == {"threshold-0.1", "threshold-inf"}
    for line, point in zip(lines, written["points"], strict=True):
        rows = records[f"threshold-{point['setting']['value']}"]
        assert [row["index"] for row in rows] == [0, 1, 2]
        for name in ("tokens", "forwards", "rows", "prefill_rows"):
            assert point[name] == sum(row[name] for row in rows)
        assert point["accuracy"] == sum(row["correct"] for row in rows) / 3
        assert line.split()[-1] == str(point["forwards"])
    before = (out / "threshold-0.1.jsonl").read_bytes()
    # The same command only reads, another threshold joins in, and --json - leaves nothing else on standard output.
    again = d3mlx("eval", *SHORT, *options[:1], "0.1,0.5", *options[2:4], "--block-size", "8", "--json", "-")
    assert [point["setting"]["value"] for point in json.loads(again.out)["points"]] == [0.1, 0.5]
    assert (out / "threshold-0.1.jsonl").read_bytes() == before
    narrow = d3mlx("eval", *SHORT, "--kv-bits", "8", "--kv-group-size", "128", "--out", str(tmp_path / "new"))
    assert (narrow.status, "heads have 64 numbers" in narrow.err) == (1, True)
    assert not (tmp_path / "new").exists()
    mixed = d3mlx("eval", *SHORT, "--decoder", "fast-dllm", "--out", str(out))
    assert (mixed.status, mixed.out) == (1, "")
    assert "another decoder (selective, not fast-dllm)" in mixed.err


def test_records_do_not_depend_on_the_batch_size(d3mlx: Any, tmp_path: Path) -> None:
    options = ["eval", "--max-tokens", "48", "--out"]
    alone = d3mlx(*options, str(tmp_path / "alone"), "--count", "6", "--batch-size", "1")
    together = d3mlx(*options, str(tmp_path / "together"), "--count", "6", "--batch-size", "5")
    assert (alone.status, alone.err) == (together.status, together.err) == (0, "")
    # The last line, AUP, and the table are computed from the records.
    assert together.out == alone.out
    records = figures(tmp_path / "alone")
    assert [row["index"] for row in records["default"]] == list(range(6))
    assert figures(tmp_path / "together") == records
    # Short answers finish first, so the file has another order.
    assert lines_of(tmp_path / "alone" / "default.jsonl") == records["default"]
    assert lines_of(tmp_path / "together" / "default.jsonl") != records["default"]
    # More problems join a folder with another batch size.
    assert d3mlx(*options, str(tmp_path / "more"), "--count", "4", "--batch-size", "3").status == 0
    assert d3mlx(*options, str(tmp_path / "more"), "--count", "6", "--batch-size", "2").out == alone.out
    assert figures(tmp_path / "more") == records


def test_public_data_vanilla_steps_and_comparison(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    data = tmp_path / "gsm8k.jsonl"
    data.write_text(GSM)
    common = ["eval", "--model", llada, "--task", "gsm8k-cot", "--data", str(data), "--max-tokens", "16"]
    one = d3mlx(*common, "--decoder", "vanilla", "--steps", "16,4", "--out", str(tmp_path / "slow"))
    two = d3mlx(
        *common,
        "--decoder",
        "d3llm",
        "--cache",
        "none",
        "--temperature",
        "1",
        "--seed",
        "3",
        "--out",
        str(tmp_path / "fast"),
    )
    assert (one.status, two.status) == (0, 0), one.err + two.err
    assert one.out.split()[0] == "steps"
    assert "strict" in one.out.splitlines()[0]
    records = figures(tmp_path / "slow")
    assert [record["forwards"] for record in records["steps-16"]] == [16, 16]
    assert [record["forwards"] for record in records["steps-4"]] == [4, 4]
    assert [record["seed"] for record in figures(tmp_path / "fast")["default"]] == [3, 4]
    folders = [str(tmp_path / "slow"), str(tmp_path / "fast")]
    plot = tmp_path / "both.svg"
    done = d3mlx("compare", *folders, "--plot", str(plot), "--x", "rpt")
    assert (done.status, done.err) == (0, "")
    for part in ("reference", "steps 4", "fast", "[", "2 problems", "differ in sampling,"):
        assert part in done.out
    assert "rows per token" in plot.read_text()
    numbers = json.loads(d3mlx("compare", *folders, "--json", "-").out)
    assert [run["name"] for run in numbers["runs"]] == ["slow", "fast"]
    # No answer of a random model is right: no difference, and an interval around it.
    found = numbers["runs"][1]["points"][0]["difference"]
    assert (found["count"], found["value"]) == (2, 0)
    assert found["low"] < 0 < found["high"]
    other = tmp_path / "other.jsonl"
    other.write_text(GSM.replace("42", "43"))
    fast = ["--out", str(tmp_path / "fast"), "--decoder", "d3llm", "--cache", "none"]
    changed = d3mlx(*common[:6], str(other), *common[7:], *fast)
    assert (changed.status, "another data" in changed.err) == (1, True)


def test_programs_run_only_when_allowed(d3mlx: Any, dream: str, tmp_path: Path) -> None:
    data = tmp_path / "humaneval.jsonl"
    row = {"prompt": "def f():\n", "test": "def check(f):\n    assert f() == 1", "entry_point": "f"}
    data.write_text(json.dumps(row) + "\n")
    options = ["eval", "--model", dream, "--task", "humaneval", "--data", str(data), "--max-tokens", "8"]
    refused = d3mlx(*options, "--out", str(tmp_path / "run"))
    assert (refused.status, "--allow-code-execution" in refused.err) == (1, True)
    assert not (tmp_path / "run").exists()
    allowed = d3mlx(*options, "--out", str(tmp_path / "run"), "--allow-code-execution")
    assert allowed.status == 0
    assert figures(tmp_path / "run")["default"][0]["why"]


WRONG = [
    (["--thresholds", "0.1,x"], 2, "0.1,x"),
    (["--steps", "4,1.5"], 2, "64,32"),
    (["--thresholds", "-0.5"], 1, "threshold"),
    (["--thresholds", "nan"], 1, "threshold"),
    (["--decoder", "fast-dllm", "--thresholds", "0.9,1.5"], 1, "threshold"),
    (["--decoder", "vanilla", "--thresholds", "0.1"], 1, "vanilla does not take threshold"),
    (["--thresholds", "0.1", "--steps", "4"], 1, "not both"),
    (["--decoder", "beam"], 1, "beam"),
    (["--task", "chess"], 1, "chess"),
    (["--task", "math"], 1, "--data"),
    (["--data", "x.jsonl"], 1, "--data"),
    (["--count", "0"], 1, "--count"),
    (["--num-fewshot", "999999"], 1, "Invalid --num-fewshot 999999. The context of this model has 512 tokens."),
    (["--batch-size", "0"], 2, "'--batch-size': Input should be greater than or equal to 1"),
    (["--max-tokens", "0"], 1, "max-tokens"),
    (["--max-tokens", "9999", "--count", "1"], 1, "below this model's context of 512"),
    (["--seed", "-1"], 1, "seed"),
    (["--y-max", "0"], 1, "y-max"),
    (["--color", "red"], 2, "--color"),
    (["--block-size", "large"], 2, "--block-size"),
    (["--threshold", "1"], 2, "--thresholds"),
    (["--kv-bits", "7"], 1, "kv-bits must be one of 2, 3, 4, 5, 6, 8, not 7."),
    (["--decoder", "vanilla", "--near", "2"], 1, "Decoder vanilla does not take near. Its options are alg,"),
    (["--decoder", "d3llm", "--cache", "dual"], 1, "cache must be one of"),
    (["--cache", "none"], 1, "selective does not take cache"),
    (["--plot", "absent/plot.svg"], 1, "absent"),
    (["--json", "."], 1, "folder"),
    (["--model", "./absent"], 1, "absent"),
]


@pytest.mark.parametrize(
    ("options", "status", "culprit"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_request_is_one_sentence(
    d3mlx: Any, tmp_path: Path, options: list[str], status: int, culprit: str
) -> None:
    done = d3mlx("eval", "--out", str(tmp_path / "run"), *options)
    assert (done.status, done.out) == (status, "")
    assert culprit in done.err
    assert not (tmp_path / "run").exists()
    if status == 1:
        assert re.fullmatch(r"(?s)(This is the built-in[^\n]*\n)?Error: [^\n]+\.\n", done.err)


def test_compare_wants_evaluations(d3mlx: Any, tmp_path: Path) -> None:
    done = d3mlx("compare", str(tmp_path))
    assert (done.status, "is not an evaluation" in done.err) == (1, True)
    assert d3mlx("compare").status == 2


def test_ctrl_c_leaves_a_folder_that_goes_on(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["eval", "--model", llada, "--decoder", "vanilla", "--max-tokens", "32", "--count", "400"]
    options += ["--out", str(out)]
    process = subprocess.Popen(
        [COMMAND, *options, "--batch-size", "4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    file = out / "default.jsonl"
    began = time.monotonic()
    while time.monotonic() - began < 60 and not (file.exists() and file.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert err == f"The solved problems are in {out}. Run the same command to continue.\nInterrupted.\n"
    solved = file.read_bytes()
    assert solved.endswith(b"\n")
    count = solved.count(b"\n")
    options[options.index("400")] = str(count + 4)
    done = d3mlx(*options, "--batch-size", "3")
    assert (done.status, done.err) == (0, "")
    assert file.read_bytes().startswith(solved)
    assert file.read_bytes().count(b"\n") == count + 4
    options[options.index(str(out))] = str(tmp_path / "whole")
    whole = d3mlx(*options, "--batch-size", "1")
    assert (whole.status, whole.out) == (0, done.out)
    assert figures(out) == figures(tmp_path / "whole")


def test_a_terminal_sees_progress(llada: str, tmp_path: Path) -> None:
    import os
    import pty

    main, side = pty.openpty()
    options = ["eval", "--model", llada, "--count", "2", "--max-tokens", "8", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90"}
    process = subprocess.Popen([COMMAND, *options], stdout=subprocess.PIPE, stderr=side, env=environment, text=True)
    os.close(side)
    seen = read_terminal(main)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "correct" in seen
    assert "2/2" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen)
    assert printed.split()[0] == "decoder"


def test_adapters_of_peft_are_known_apart(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    write_peft(tmp_path / "peft", "llada", llada_weights(LLADA_CONFIG))
    run = ["eval", "--model", llada, "--adapter-path", str(tmp_path / "peft"), "--count", "1", "--max-tokens", "8"]
    done = d3mlx(*run, "--out", str(tmp_path / "run"))
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["adapter_fingerprint"]
