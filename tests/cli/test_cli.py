"""The command line through its real entry point."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from d3mlx import generate, load
from d3mlx.decoding.options import options_of
from d3mlx.decoding.presets import PRESETS
from d3mlx.errors import PromptError
from tests.builders import write_llada
from tests.cli.conftest import COMMAND
from tests.cli.terminal import read_terminal

ESCAPE = "\x1b"


def test_piped_text_is_the_text_and_nothing_else(llada: str) -> None:
    """In a process of its own: what `d3mlx generate ... | cat` gives."""
    arguments = ["generate", "hello", "--model", llada, "--raw", "--max-tokens", "24", "--temperature", "1"]
    done = subprocess.run([COMMAND, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    model, tokenizer = load(llada)
    from d3mlx import Sampling

    text = generate(model, tokenizer, "hello", max_tokens=24, sampling=Sampling(temperature=1)).text
    assert done.stdout.decode() == text + "\n"
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["Prompt", "Generation", "Peak memory", "Denoising"]


@pytest.mark.parametrize("decoder", ["vanilla", "fast-dllm", "d3llm", "selective"])
def test_json_lines_partition_the_answer(d3mlx: Any, llada: str, decoder: str) -> None:
    done = d3mlx("generate", "hi", "--model", llada, "--decoder", decoder, "--max-tokens", "40", "--json")
    assert (done.status, done.err) == (0, "")
    *steps, last = [json.loads(line) for line in done.out.splitlines()]
    assert [step["step"] for step in steps] == list(range(len(steps)))
    tokens: dict[int, int] = {}
    for step in steps:
        assert not set(step["positions"]) & set(tokens)
        tokens |= dict(zip(step["positions"], step["tokens"], strict=True))
        tokens |= dict.fromkeys(step["filled"], 257)
    # Positions count from the first token of the prompt.
    first = last["stats"]["prompt_tokens"]
    assert sorted(tokens) == list(range(first, first + 40))
    assert [tokens[first + p] for p in range(len(last["tokens"]))] == last["tokens"]
    assert last["text"] == "".join(step["text"] for step in steps)
    assert last["stats"]["forwards"] == len(steps)
    assert last["stats"]["rows"] == sum(step["rows"] for step in steps)
    assert last["config"]["decoder"] == decoder
    assert last["config"]["sampling"]["seed"] == 0
    caches = {"vanilla": "NoCache", "fast-dllm": "DualCache", "d3llm": "DelayedCache", "selective": "SelectiveCache"}
    assert last["config"]["policies"]["cache"]["type"] == caches[decoder]


def test_options_reach_the_decoder(d3mlx: Any, llada: str, dream: str) -> None:
    def policies(*options: str) -> Any:
        done = d3mlx("generate", "hi", "--max-tokens", "8", "--json", *options)
        assert done.status == 0, done.err
        return json.loads(done.out.splitlines()[-1])["config"]["policies"]

    d3 = ["--decoder", "d3llm", "--block-size", "8", "--block-add", "0.3", "--activation", "0.7", "--cache-delay", "4"]
    chosen = policies("--model", llada, *d3, "--refresh-interval", "5", "--threshold", "0.9")
    schedule = {"type": "MultiBlock", "block_size": 8, "block_add": 0.3, "activation": 0.7, "ahead": None}
    assert chosen["schedule"] == schedule
    assert (chosen["cache"]["delay"], chosen["cache"]["refresh_interval"]) == (4, 5)
    assert chosen["acceptance"]["threshold"] == 0.9
    assert policies("--model", dream)["acceptance"]["threshold"] == 0.4
    assert policies("--kv-bits", "8", "--kv-group-size", "32")["kv"] == {
        "type": "KVQuantization",
        "bits": 8,
        "group_size": 32,
    }
    refused = d3mlx("generate", "hi", "--model", llada, "--kv-bits", "8")
    assert (refused.status, "heads have 16 numbers" in refused.err) == (1, True)
    vanilla = ["--decoder", "vanilla", "--steps", "4"]
    assert policies("--model", llada, *vanilla, "--cfg-scale", "0.5", "--alg", "random")["cfg_scale"] == 0.5
    origin = policies("--model", dream, *vanilla, "--alg", "topk_margin", "--alg-temp", "0.3", "--eps", "0.01")
    assert origin["acceptance"] | {"filtered_statistics": True} == {
        "type": "DreamSchedule",
        "measure": "margin",
        "steps": 4,
        "eps": 0.01,
        "alg_temp": 0.3,
        "first_step": 0,
        "filtered_statistics": True,
    }
    fast = ["--model", llada, "--decoder", "fast-dllm", "--cache", "prefix", "--factor", "1.5"]
    assert policies(*fast)["acceptance"]["factor"] == 1.5
    ours = policies("--model", dream, "--decoder", "selective", "--recent", "3", "--rows", "40", "--first-masks", "9")
    assert [ours["cache"][name] for name in ("recent", "rows", "first_masks")] == [3, 40, 9]
    assert policies("--decoder", "selective", "--block-add", "0.1")["schedule"]["block_add"] == 0.1


def test_trace_holds_the_run(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    done = d3mlx("generate", "hi", "--model", llada, "--max-tokens", "8", "--trace", str(path))
    run = json.loads(path.read_text())
    assert run["text"] + "\n" == done.out
    assert len(run["steps"]) == run["stats"]["forwards"]
    assert list(tmp_path.iterdir()) == [path]
    done = d3mlx("generate", "hi", "--model", llada, "--trace", str(tmp_path / "absent" / "run.json"))
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert f"Cannot write {tmp_path / 'absent' / 'run.json'}: there is no folder" in done.err
    os.mkfifo(tmp_path / "pipe")
    for wrong in (path / "below", tmp_path / "pipe"):
        done = d3mlx("generate", "hi", "--model", llada, "--trace", str(wrong))
        assert (done.status, done.err.count("\n")) == (1, 1)
        assert str(wrong.parent) in done.err


def test_seeds_and_stop_texts(d3mlx: Any, llada: str) -> None:
    def text(*options: str) -> str:
        done = d3mlx("generate", "hi", "--model", llada, "--max-tokens", "30", "--temperature", "1", *options)
        assert done.status == 0, done.err
        return str(done.out)

    assert text("--seed", "5") == text("--seed", "5") != text("--seed", "6")
    whole = text("--seed", "5").rstrip("\n")
    cut = whole[len(whole) // 2 : len(whole) // 2 + 2]
    assert text("--seed", "5", "--stop", cut).rstrip("\n") == whole[: whole.index(cut)]


def test_prompt_from_standard_input(llada: str) -> None:
    arguments = [COMMAND, "generate", "-", "--model", llada, "--max-tokens", "4", "--json"]
    done = subprocess.run(arguments, input="from a pipe", capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["config"]["prompt"][-1]["content"] == "from a pipe"


BROKEN_PIPES = [
    (r"printf '\xff\xfe' | '{command}' generate - --model '{model}'", "not UTF-8"),
    ("'{command}' generate - --model '{model}' <&-", "input is closed"),
    ("'{command}' generate hi --model '{model}' >&-", "output is closed"),
    ("'{command}' generate hi --model '{model}' --plain > /dev/full", "No space left"),
]


@pytest.mark.parametrize(("script", "culprit"), BROKEN_PIPES)
def test_streams_that_do_not_work(llada: str, script: str, culprit: str) -> None:
    if "/dev/full" in script and not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    done = subprocess.run(["bash", "-c", script.format(command=COMMAND, model=llada)], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(rf"Error: [^\n]*{culprit}[^\n]*\.\n", done.stderr)


WRONG = [
    (["--temperature", "-1"], 1, "temperature"),
    (["--top-p", "2"], 1, "top-p"),
    (["--top-k", "0"], 1, "top-k"),
    (["--threshold", "-0.1"], 1, "threshold"),
    (["--decoder", "fast-dllm", "--threshold", "1.1"], 1, "threshold"),
    (["--max-tokens", "0"], 1, "max-tokens"),
    (["--max-tokens", "9999"], 1, "context of 512"),
    (["--block-size", "0"], 1, "block-size must be a number of tokens, 1 to 4,096, not 0."),
    (["--decoder", "beam"], 1, "beam"),
    (["--decoder", "d3llm", "--factor", "1"], 1, "d3llm does not take factor"),
    (["--decoder", "d3llm", "--cache", "dual"], 1, "cache must be one of"),
    (["--decoder", "vanilla", "--threshold", "1"], 1, "vanilla does not take threshold"),
    (["--decoder", "vanilla", "--alg-temp", "1"], 1, "Dream"),
    (["--decoder", "fast-dllm", "--alg", "random", "--cache-delay", "1"], 1, "does not take alg, cache-delay"),
    (["--raw", "--system", "x"], 1, "--system"),
    (["--stop", ""], 1, "stop text"),
    (["--json", "--plain"], 1, "not both"),
    (["--cache", "half"], 2, "half"),
    (["--max-tokens", "many"], 2, "max-tokens"),
    (["--no-such-option"], 2, "no-such-option"),
]


@pytest.mark.parametrize(
    ("options", "status", "culprit"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_request_is_one_sentence(d3mlx: Any, llada: str, options: list[str], status: int, culprit: str) -> None:
    done = d3mlx("generate", "hi", "--model", llada, *options)
    assert done.status == status
    assert culprit in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    if status == 1:
        assert re.fullmatch(r"Error: [^\n]+\.\n", done.err)


def test_the_embedded_model_answers_without_any_option(d3mlx: Any) -> None:
    done = d3mlx("generate", "Gina has 7 boxes with 8 books in each. How many books are there?")
    assert done.status == 0
    assert re.search(r"\d\*\d=\d+", done.out)
    assert done.err.startswith("This is the bundled demonstration model.")


def test_a_prompt_is_given_once(d3mlx: Any, llada: str) -> None:
    options = "--model", llada, "--max-tokens", "4"
    assert d3mlx("generate", "hi", *options).out == d3mlx("generate", "--prompt", "hi", *options).out
    for words in ([], ["hi", "--prompt", "hi"]):
        done = d3mlx("generate", *words, *options)
        assert (done.status, "reads standard input" in " ".join(done.err.split())) == (2, True)


def test_an_empty_prompt_and_an_absent_model(d3mlx: Any, llada: str) -> None:
    assert "empty" in d3mlx("generate", "  ", "--model", llada).err
    done = d3mlx("generate", "hi", "--model", "./absent")
    assert (done.status, done.err.count("\n")) == (1, 1)


def test_debug_shows_where(d3mlx: Any) -> None:
    assert "Traceback" in d3mlx("--debug", "generate", "hi", "--model", "./absent").err


def test_ctrl_c_is_130(tmp_path: Path) -> None:
    """The run writes more than fits in a pipe that nobody reads, so it cannot end before the signal."""
    model = str(write_llada(tmp_path / "llada", max_sequence_length=2048))
    arguments = [COMMAND, "generate", "hi", "--model", model, "--max-tokens", "1000", "--decoder", "vanilla", "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Interrupted.\n")


def test_a_reader_that_leaves_is_no_error(llada: str) -> None:
    script = f"'{COMMAND}' generate hi --model '{llada}' --max-tokens 200 --decoder vanilla --json | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert json.loads(done.stdout)["step"] == 0
    assert done.stderr == ""


def test_a_terminal_sees_the_canvas_and_the_statistics(llada: str) -> None:
    """Through a pseudo-terminal: frames are drawn, the cursor comes back, the four lines close the run."""
    import pty

    arguments = [COMMAND, "generate", "hi", "--model", llada, "--max-tokens", "48", "--decoder", "vanilla"]
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "70", "LINES": "24"}
    process = subprocess.Popen(arguments, stdout=side, stderr=side, env=environment)
    os.close(side)
    text = read_terminal(main)
    assert process.wait(timeout=10) == 0
    assert "░" in text
    assert text.rindex(f"{ESCAPE}[?25h") > text.rindex(f"{ESCAPE}[?25l")
    closing = [line.strip() for line in text.split("\n") if line.strip()][-4:]
    patterns = [
        r"Prompt: \d+ tokens, [\d.]+ tokens-per-sec",
        r"Generation: \d+ tokens, [\d.]+ tokens-per-sec",
        r"Peak memory: [\d.]+ GB",
        r"Denoising: \d+ forwards, [\d.]+ tokens/forward, [\d.]+ rows/token",
    ]
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, closing, strict=True)), closing


def test_help_reads_like_a_manual(d3mlx: Any) -> None:
    manual = d3mlx("--help").out
    for part in ("Examples", "Environment", "Exit status", "generate", "info", "HF_HUB_OFFLINE"):
        assert part in manual
    options = d3mlx("generate", "--help").out
    for panel in ("Model", "Decoder", "Sampling", "Output", "--threshold", "--cache"):
        assert panel in options
    assert "--cache-delay" not in options, "few people use it"
    assert set(re.findall(r"^\w[\w-]+", d3mlx("decoders").out, re.MULTILINE)) >= set(PRESETS)
    for name, kind in PRESETS.items():
        described = d3mlx("decoders", name).out
        for option in options_of(kind).values():
            assert f"--{option.flag} " in described
    assert re.search(r"--threshold +0 or more +0\.5 \(llada\), 0\.4 \(dream\)", d3mlx("decoders", "d3llm").out)
    assert d3mlx("decoders", "beam").err == (f"Error: decoder must be one of {', '.join(PRESETS)}, not 'beam'.\n")
    assert re.fullmatch(r"d3mlx \d+\.\d+\.\d+\n", d3mlx("--version").out)


def test_shell_completion() -> None:
    environment = {**os.environ, "_D3MLX_COMPLETE": "complete_bash", "COMP_WORDS": "d3mlx gen", "COMP_CWORD": "1"}
    done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["generate"]


def test_info(d3mlx: Any, llada: str, dream: str) -> None:
    facts = json.loads(d3mlx("info", dream, "--json").out)
    assert (facts["family"], facts["mask_id"], facts["end_ids"], facts["context"]) == ("dream", 260, [256, 258], 512)
    assert facts["bits_per_weight"] == 32
    table = d3mlx("info", llada).out
    assert "258" in table
    assert ESCAPE not in table
    assert d3mlx("info", "./absent").status == 1


@pytest.mark.parametrize("prompt", ["-5 + 3 = ?", "- a list\n- of things", "-", "--- a/file.py", "-—"])
def test_a_prompt_may_begin_with_a_dash(d3mlx: Any, llada: str, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the argument, as the value of --prompt, before and after options; `-` alone is standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"-")))
    model, tokenizer = load(llada)
    expected = generate(model, tokenizer, prompt, max_tokens=8).text
    run = ["--model", llada, "--raw", "--max-tokens", "8"]
    for arguments in ([prompt, *run], [*run, prompt], [*run, "--stop", "- no", prompt], [*run, "--prompt", prompt]):
        done = d3mlx("generate", *arguments)
        assert (done.status, done.out) == (0, expected + "\n"), done.err
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"-")))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
def test_json_is_json_on_every_terminal(llada: str, encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [COMMAND, "generate", "Größe 你好", "--model", llada, "--json", "--max-tokens", "4", "--raw"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.decode(encoding).splitlines()[-1])
    assert last["config"]["prompt"] == "Größe 你好"


TEMPLATES = {
    "refuses": ("{{ raise_exception('Only user turns, please.') }}", "cannot take these messages: Only user turns"),
    "says nothing": ("", "gives no text for these messages"),
    "does not parse": ("{% if %}", "cannot take these messages"),
    "fails": ("{{ messages[0]['content'] + 1 }}", "cannot take these messages"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_fails_is_one_sentence(d3mlx: Any, tmp_path: Path, name: str) -> None:
    template, culprit = TEMPLATES[name]
    folder = write_llada(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    done = d3mlx("generate", "hi", "--model", str(folder), "--max-tokens", "4")
    assert (done.status, done.out) == (1, "")
    assert culprit in done.err and re.fullmatch(r"Error: [^\n]+\.\n", done.err)
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "hi"}\n')
    done = d3mlx("trajectories", str(tmp_path / "out"), "--model", str(folder), "--data", str(data))
    assert done.status == 1
    assert "data.jsonl, record 1" in done.err and culprit in done.err


def test_a_text_far_too_long_is_not_tokenized(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    model, tokenizer = load(llada)
    text = "x" * (model.args.context * 20 + 1)
    with pytest.raises(PromptError, match="10,241 bytes"):
        generate(model, tokenizer, text)
