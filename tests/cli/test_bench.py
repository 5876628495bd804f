"""`d3mlx bench` and `--profile` through the real entry point, with tiny models and almost no time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from d3mlx.bench import forwards
from d3mlx.bench.chips import chip_named
from d3mlx.bench.cost import cost
from d3mlx.bench.roofline import Roofline
from d3mlx.bench.shapes import SHAPES, skeleton
from d3mlx.profiling import STAGES

TINY = ["--layers", "2", "--hidden", "64", "--heads", "2", "--ff", "128", "--vocab", "100"]
SHORT = ["--seconds", "0.2"]
FEW = ["--row-counts", "1,8", "--context", "16"]


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time of every forward to one millisecond, so that the speed of the machine has no effect."""
    monkeypatch.setattr(forwards, "timed", lambda act: float(act() is None) / 1000)


@pytest.mark.usefixtures("steady")
def test_a_model_is_measured(d3mlx: Any, llada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = tmp_path / "bench.json"
    work = ["--context", "64", "--max-tokens", "16", "--decoders", "selective,d3llm:none,fast-dllm"]
    done = d3mlx("bench", "--model", llada, *SHORT, *work, "--profile", "--json", str(numbers))
    assert (done.status, done.err) == (0, "")
    found = json.loads(numbers.read_text())
    assert found["kind"] == "measurement"
    assert found["machine"]["device_info"]["device_name"]
    assert set(found["machine"]["versions"]) == {"d3mlx", "mlx", "mlx-lm"}
    assert re.fullmatch(r"[0-9a-f]{40}\+?", found["machine"]["commit"] or "0" * 40)
    assert (found["model"]["weights"], found["model"]["hidden"]) == ("float32", 64)
    steps = found["forwards"]["steps"]
    assert [step["rows"] for step in steps] == [1, 2, 4, 5, 6, 8, 9, 10, 12, 16, 24, 32, 33, 40, 48, 64]
    assert all(0 < step["low"] <= step["seconds"] <= step["high"] for step in steps)
    assert [rows for rows, _ in found["curve"]] == [step["rows"] for step in steps]
    assert found["good_counts"] == []
    assert list(found["decoding"]) == ["selective", "d3llm:none", "fast-dllm"]
    assert len({total["prompts"] for total in found["decoding"].values()}) == 1
    for name, total in found["decoding"].items():
        profile = found["profiles"][name]
        assert profile["steps"] == total["forwards"]
        assert set(profile["seconds"]) == set(STAGES)
    # The same in words, in lines that survive being pasted.
    assert "\x1b" not in done.out
    assert done.out.startswith(f"$ d3mlx bench --model {llada}")
    table = [line.split() for line in done.out.splitlines() if re.match(r" *\d+ ", line)]
    assert [line[0] for line in table] == [str(step["rows"]) for step in steps]
    assert [line[-1] for line in table] == [str(step["repeats"]) for step in steps]
    for start in ("Machine: ", "Software: d3mlx ", "Prefill: 64 tokens", "No row count is better than others."):
        assert f"\n{start}" in done.out
    assert "d3llm:none, time per stage of the loop:" in done.out
    assert ("fewer than 5 times" in done.out) == (min(step["repeats"] for step in steps) < 5)


def test_few_measurements_are_called_unreliable(d3mlx: Any) -> None:
    done = d3mlx("bench", *TINY, *FEW, "--seconds", "1e-9")
    assert "Some counts were measured fewer than 5 times. For reliable times, use more --seconds." in done.out


def test_shapes_need_no_weights(d3mlx: Any) -> None:
    done = d3mlx("bench", *TINY, "--kv-heads", "1", "--q-bits", "4", *FEW, *SHORT, "--json", "-")
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["model"]["weights"] == "4-bit"
    assert (found["model"]["kv_heads"], found["model"]["family"]) == (1, "llada")
    assert found["decoding"] == {}
    named = d3mlx("bench", "--shape", "dream-7b", *TINY, "--kv-heads", "2", *FEW, *SHORT)
    assert (named.status, named.err) == (0, "")
    assert "Model: random weights, dream-7b (dream)" in named.out
    assert "Whole answers" not in named.out


def test_own_prompts(d3mlx: Any, dream: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "One?"}\n{"question": "And two?"}\n')
    options = ["--model", dream, "--max-tokens", "8", "--decoders", "d3llm", *FEW]
    done = d3mlx("bench", *options, "--prompts", str(prompts), "--seconds", "1e-9", "--json", "-")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["decoding"]["d3llm"]["prompts"] == 1
    prompts.write_text('{"prompt": "One?"}\n{"prompt": 2}\n')
    done = d3mlx("bench", *options, "--prompts", str(prompts))
    assert (done.status, done.out) == (1, "")
    assert "record 2" in done.err
    prompts.write_text(json.dumps({"prompt": "long " * 200}))
    done = d3mlx("bench", *options, "--prompts", str(prompts))
    assert (done.status, "exceed this model's context" in done.err) == (1, True)


def test_a_prediction_says_so_and_shows_its_inputs(d3mlx: Any, llada: str) -> None:
    done = d3mlx("bench", "--roofline", "m4-pro", "--context", "0", "--row-counts", "1,32,33,96,350")
    assert (done.status, done.err) == (0, "")
    first, *lines = done.out.splitlines()
    assert first.startswith("PREDICTION for M4 Pro, not a measurement: t(rows) = sum of tiles * max(")
    times = {line.split()[0]: line.split()[1] for line in lines if re.match(r" *\d+ ", line)}
    expected = Roofline(chip_named("M4 Pro"), cost(skeleton(SHAPES["llada-8b"], 4), 0))
    assert {int(rows): float(shown) for rows, shown in times.items()} == {
        rows: pytest.approx(1000 * expected.seconds(rows), rel=1e-3) for rows in (1, 32, 33, 96, 350)
    }
    assert "assumed" in done.out
    assert "Good row counts: 32. After each of them, a row costs clearly more" in done.out
    assert f"as in autoregression: {expected.ceiling:.0f} tokens/s." in done.out
    written = json.loads(d3mlx("bench", "--roofline", "M5 Max", "--shape", "dream-7b", "--json", "-").out)
    assert written["good_counts"] == [64]
    assert (written["kind"], written["chip"]["assumed"]) == ("prediction", True)
    assert written["model"]["weights"] == "bfloat16"
    assert written["cost"]["cache_bytes"] == 56 * 1024 * 512
    own = json.loads(d3mlx("bench", "--roofline", "M1", "--model", llada, "--json", "-").out)
    assert own["model"]["parameters"] < 200_000


WRONG = [
    (["--model", "x", "--shape", "llada-8b"], "not both"),
    (["--shape", "llada-9b"], "llada-9b"),
    (["--layers", "2", "--hidden", "64"], "--heads, --ff, --vocab"),
    ([*TINY, "--heads", "3"], "--heads"),
    ([*TINY, "--q-bits", "7"], "--q-bits"),
    (["--q-bits", "4"], "--q-bits"),
    ([*TINY, "--decoders", "d3llm"], "--decoders"),
    (["--roofline", "M4", "--profile"], "--profile"),
    (["--roofline", "M99"], "M99"),
    (["--roofline", "M4", "--seconds", "5"], "--seconds"),
    (["--roofline", "M4", "--revision", "main"], "--revision needs --model."),
    (["--shape", "llada-8b", "--revision", "main"], "--revision needs --model."),
    (["--roofline", "M4", "--context", "-1"], "--context"),
    (["--decoders", "beam"], "beam"),
    (["--decoders", "d3llm:dual"], "dual"),
    (["--decoders", "selective:none"], "does not take cache"),
    (["--context", "100000"], "The maximum of this model is 512."),
    ([*TINY, "--context", "0"], "--context"),
    ([*TINY, "--row-counts", "0,8"], "--row-counts"),
    ([*TINY, "--context", "16", "--row-counts", "8,17"], "--row-counts"),
    ([*TINY, "--seconds", "0"], "--seconds"),
    (["--max-tokens", "0"], "max-tokens"),
    (["--max-tokens", "9999"], "exceed"),
    (["--prompts", "absent.jsonl"], "absent.jsonl"),
    (["--json", "absent/x.json"], "absent"),
]


@pytest.mark.parametrize(("options", "culprit"), WRONG, ids=lambda value: " ".join(value) if value else "")
def test_a_wrong_request_is_one_sentence(d3mlx: Any, options: list[str], culprit: str) -> None:
    done = d3mlx("bench", *options)
    assert (done.status, done.out) == (1, "")
    assert culprit in done.err
    assert re.fullmatch(r"Error: [^\n]+\.\n", done.err)


def test_a_list_that_is_none(d3mlx: Any) -> None:
    done = d3mlx("bench", *TINY, "--row-counts", "few")
    assert (done.status, done.out) == (2, "")


def test_generate_tells_the_time_of_its_stages(d3mlx: Any, llada: str) -> None:
    options = ["generate", "hi", "--model", llada, "--max-tokens", "16"]
    without = d3mlx(*options, "--json")
    done = d3mlx(*options, "--json", "--profile")
    assert (without.status, without.err, done.status) == (0, "", 0)
    *steps, last = [json.loads(line) for line in done.out.splitlines()]
    *plain, end = [json.loads(line) for line in without.out.splitlines()]
    assert steps == plain
    assert "profile" not in end
    assert last["profile"]["steps"] == len(steps)
    assert last["profile"]["total"] == pytest.approx(sum(last["profile"]["seconds"].values()))
    assert last["profile"]["total"] <= last["stats"]["seconds"]
    rows = [line.split()[0] for line in done.err.splitlines()]
    assert rows == ["stage", *STAGES, "all"]
