"""Texts that act on a terminal, signals during a clean-up, errors of libraries, and numbers that cannot be meant."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from d3mlx.cli.main import sentence
from d3mlx.terminal import escaped, printable
from tests.builders import LLADA_SPECIAL, byte_tokenizer, write_json, write_llada
from tests.cli.terminal import read_terminal

PURPLE, CLEAR, TITLE = "\x1b[35;5m", "\x9b2J", "\x1b]0;owned\x07"
HOSTILE = f"{PURPLE}{CLEAR}{TITLE}[bold]"


SEVERAL = (
    "import json, sys\n"
    "from d3mlx.cli.main import run\n"
    "for arguments in json.loads(sys.argv[1]):\n"
    "    sys.argv = ['d3mlx', *arguments]\n"
    "    try:\n        run()\n"
    "    except SystemExit:\n        print('---end---', flush=True)\n"
)
"""A program that runs several command lines, one after the other."""


def on_terminal(commands: list[list[str]], cwd: Path) -> list[str]:
    """Return what a real terminal receives from each command."""
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "400", "LINES": "40", "HF_HUB_OFFLINE": "1"}
    program = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    process = subprocess.Popen(program, stdout=side, stderr=side, env=environment, cwd=cwd)
    os.close(side)
    seen = read_terminal(main)
    process.wait(timeout=60)
    return seen.split("---end---")[:-1]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the parent of a model whose name, architecture and every token contain escape codes."""
    parent = tmp_path_factory.mktemp("hostile")
    folder = write_llada(parent / f"model{PURPLE}{CLEAR}[bold]", architectures=[HOSTILE], model_type="llada")
    tokenizer = json.loads(byte_tokenizer(LLADA_SPECIAL).to_str())
    tokenizer["decoder"] = {"type": "Replace", "pattern": {"Regex": "."}, "content": f"{PURPLE}{CLEAR}!"}
    write_json(folder / "tokenizer.json", tokenizer)
    return parent


def test_a_terminal_gets_no_code_of_a_model(hostile: Path) -> None:
    name = next(hostile.iterdir()).name
    run = ["generate", "hi", "--raw", "--max-tokens", "8", "--model", name]
    commands = [
        [*run, "--plain"],
        run,
        ["info", name],
        ["info", name, "--json"],
        [*run, "--adapter-path", HOSTILE],
        [*run, "--cache", HOSTILE],
        [*run, HOSTILE],
        ["distill", "--model", name, "--data", HOSTILE],
    ]
    outputs = on_terminal(commands, hostile)
    assert len(outputs) == len(commands)
    for command, seen in zip(commands, outputs, strict=True):
        for code in (PURPLE, CLEAR, TITLE, "\x07"):
            assert code not in seen, command
        assert "[bold]" in seen
        assert "�" in seen or "\\u001b" in seen or "\\x1b" in seen, command
    assert outputs[0].count("�[35;5m�2J!") > 1


def test_a_pipe_gets_the_text_as_it_is(d3mlx: Any, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    name = next(hostile.iterdir()).name
    assert d3mlx("generate", "hi", "--raw", "--max-tokens", "8", "--model", name).out.count(f"{PURPLE}{CLEAR}!") > 1
    assert name in d3mlx("info", name).out


def test_only_control_characters_are_replaced() -> None:
    assert printable("a\tb\r\nc é 你\u200d🙂\u200c") == "a    b\nc é 你\u200d🙂\u200c"
    assert printable("\x1b[0m\x9b\u202e\ud800\x00") == "�[0m����"
    assert [escaped(c) for c in "é\x9b\U000e0041"] == ["é", "\\u009b", "\\udb40\\udc41"]
    assert json.loads(f'"{escaped(chr(0xE0041))}"') == chr(0xE0041)


def test_a_second_signal_does_not_disturb_a_cleanup(tmp_path: Path) -> None:
    """The clean-up of a conversion is slow here; signals arrive in it and before it."""
    code = (
        "import os, shutil, signal, sys, time\n"
        "from d3mlx.cli.main import run\n"
        "from d3mlx.convert import converter\n"
        "real = shutil.rmtree\n"
        "def slow(*args, **named):\n"
        "    print('cleaning', flush=True)\n"
        "    time.sleep(0.5)\n"
        "    real(*args, **named)\n"
        "shutil.rmtree = slow\n"
        "def stop(*args):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(9)\n"
        "converter.write_weights = stop\n"
        "sys.argv = ['d3mlx', 'convert', '--hf-path', 'model', '--mlx-path', 'out']\n"
        "run()\n"
    )
    write_llada(tmp_path / "model")
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "cleaning\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.05)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_with_nohup_outlives_its_terminal() -> None:
    """nohup ignores SIGHUP, and a shell ignores interrupts of background jobs. Only interrupts end the run."""
    code = (
        "import signal\n"
        "from d3mlx.cli import main\n"
        "for each in main.ENDING:\n"
        "    signal.signal(each, signal.SIG_IGN)\n"
        "main.app = lambda: print(*(each.name for each in main.ENDING if signal.getsignal(each) == main.end_run))\n"
        "main.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("SIGINT SIGTERM\n", "")


def test_a_low_limit_of_open_files_is_no_obstacle(llada: str) -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
        "def refuse(*_):\n"
        "    raise ValueError('not allowed to raise maximum limit')\n"
        "resource.setrlimit = refuse\n"
        "from d3mlx.cli.main import run\n"
        f"sys.argv = ['d3mlx', 'generate', 'hi', '--model', {llada!r}, '--max-tokens', '4']\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def panic() -> BaseException:
    """Return a panic of tokenizers: an added token that the vocabulary cannot contain."""
    kind = type("PanicException", (BaseException,), {})
    return kind("index out of bounds")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[malloc] Unable to allocate 9 bytes."), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ImportError("No module named 'x'"), "Install d3mlx again"),
        (FileNotFoundError("No such file: x"), "No such file: x."),
        (panic(), "The tokenizer failed: index out of bounds."),
    ],
)
def test_errors_of_libraries_are_one_sentence(error: BaseException, said: str) -> None:
    text = sentence(error)
    assert said in text and text.endswith(".") and "Unexpected" not in text


def test_a_panic_of_the_tokenizer_is_one_sentence(d3mlx: Any, llada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from d3mlx.checkpoints import tokenizer

    def fail(checkpoint: Any) -> None:
        os.write(2, b"thread panicked at src/lib.rs\n")
        raise panic()

    monkeypatch.setattr(tokenizer, "wrapped", fail)
    done = d3mlx("generate", "hi", "--model", llada)
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "cannot be loaded: index out of bounds. Download its files again.\n" in done.err


IMPOSSIBLE = [
    (["generate", "hi", "--max-tokens", "1000000000000"], "from 1 to 1,048,576"),
    (["generate", "hi", "--max-tokens", "512"], "below this model's context of 512"),
    (["eval", "--count", "1000000000"], "from 1 to 1,000,000"),
    (["eval", "--batch-size", "1000000000"], "equal to 4096"),
    (["trajectories", "out", "--limit", "1000000000"], "equal to 1000000"),
    (["distill", "--data", "x", "--rank", "100000"], "between 1 and 4,096"),
    (["distill", "--data", "x", "--iters", "1000000000"], "between 1 and 100,000,000"),
    (["distill", "--data", "x", "--batch-size", "1000000000"], "between 1 and 4,096"),
    (["distill", "--data", "x", "--num-layers", "1000000000"], "between 1 and 2"),
]


@pytest.mark.parametrize(("arguments", "limit"), IMPOSSIBLE, ids=lambda value: str(value[-2:]))
def test_numbers_that_cannot_be_meant_are_refused(
    d3mlx: Any, llada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], limit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = d3mlx(*arguments, "--model", llada)
    assert done.status in (1, 2)
    assert limit in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []


def test_sizes_of_random_weights_have_limits(d3mlx: Any) -> None:
    sizes = {"--layers": "2", "--hidden": "64", "--heads": "2", "--ff": "64", "--vocab": "64"}
    for name in sizes:
        given = [part for pair in (sizes | {name: "1000000000"}).items() for part in pair]
        done = d3mlx("bench", *given)
        assert done.status == 1 and f"{name} must be from" in done.err
    assert "at most 86,400" in d3mlx("bench", "--seconds", "1e9").err


WHERE = ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json", "chat_template.jinja"]


@pytest.mark.parametrize("name", WHERE)
def test_a_pipe_in_a_model_folder_does_not_hang(d3mlx: Any, tmp_path: Path, name: str) -> None:
    folder = write_llada(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for command in (["info"], ["generate", "hi", "--model"]):
        done = d3mlx(*command, str(folder))
        assert (done.status, done.err) == (1, f"Error: {folder / name} is not a regular file. Replace it with one.\n")


def test_a_pipe_or_device_as_data_or_settings_does_not_hang(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    pipe, run = tmp_path / "pipe", ["distill", "--model", llada, "--adapter-path", str(tmp_path / "out")]
    os.mkfifo(pipe)
    for path in (str(pipe), "/dev/zero"):
        for command in (
            [*run, "--data", "x", "--config", path],
            ["trajectories", str(tmp_path / "out"), "--model", llada, "--data", path],
            ["eval", "--task", "gsm8k-cot", "--model", llada, "--data", path],
        ):
            done = d3mlx(*command)
            assert (done.status, done.err) == (1, f"Error: {path} is not a regular file. Replace it with one.\n")


@pytest.mark.parametrize("value", ["abc", "-1", "1e3"])
def test_a_wrong_time_limit_of_the_hub_is_named(d3mlx: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", value)
    done = d3mlx("info")
    assert done.status == 1
    assert done.err == (
        f"Error: The environment variable HF_HUB_ETAG_TIMEOUT is '{value}'. Use a whole number of seconds from 0 to "
        "86,400, or unset it.\n"
    )


def test_standard_input_without_an_end_is_refused(d3mlx: Any, llada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3mlx.cli.standard_input.MOST_BYTES", 1000)
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr("sys.stdin", endless)
        done = d3mlx("generate", "-", "--model", llada)
    assert (done.status, done.err) == (
        1,
        "Error: Standard input has more than 1,000 bytes. Shorten the text.\n",
    )


def test_errors_name_the_right_cause(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    done = d3mlx("info", str(write_llada(tmp_path / "typed", model_type=5)))
    assert done.err.endswith("config.json: model_type must be a text, not 5.\n")
    for wrong in (None, "4bit", 4):
        quantized = {"group_size": 64, "bits": 4, "lm_head": wrong}
        done = d3mlx("info", str(write_llada(tmp_path / f"q{wrong}", quantization=quantized)))
        assert f"has the quantization {wrong!r} for lm_head. It must be an object, true or false.\n" in done.err
    done = d3mlx("generate", "hi", "--model", llada, "--stop", "\ud800")
    assert done.err == "Error: A stop text contains bytes that are not UTF-8 text. Use UTF-8.\n"
    done = d3mlx("info", "./" + "x" * 100_000)
    assert done.status == 1 and len(done.err) < 1100 and " ... " in done.err


def test_bad_data_is_refused_before_the_estimate_is_shown(d3mlx: Any, llada: str, tmp_path: Path) -> None:
    empty, rows = tmp_path / "empty", tmp_path / "rows.jsonl"
    empty.mkdir()
    rows.write_text('{"prompt": "x"}\n')
    run = ["distill", "--model", llada, "--adapter-path", str(tmp_path / "out"), "--objective", "sft"]
    done = d3mlx(*run, "--data", str(empty))
    assert done.err.startswith(f"Error: {empty} contains neither trajectories.json nor train.jsonl. Use a folder of")
    refused = d3mlx(*run, "--data", str(rows)).err
    assert refused == f"Error: {rows}, record 1: the record has no completion. Add one as text.\n"


def test_a_token_that_cannot_be_sent_is_named(d3mlx: Any, tmp_path: Path) -> None:
    from d3mlx.checkpoints.hub import Hub
    from d3mlx.checkpoints.hub import sentence as hub_sentence

    wrong = UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)")
    assert hub_sentence(wrong, Hub("a/b", None, 30)).startswith(
        "The Hugging Face token is not a token. Correct HF_TOKEN"
    )
