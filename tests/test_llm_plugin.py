"""The plugin for `llm`, through the `llm` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from d3mlx import generate, load
from tests.builders import write_llada
from tests.examples import ANSWER, BEGINNING, QUESTION, TOKENS

cli = pytest.importorskip("llm.cli", reason="llm is not installed.").cli

from click.testing import CliRunner, Result  # noqa: E402


@pytest.fixture
def llm(tmp_path: Path) -> Any:
    """Call the `llm` command in this process, with an empty folder of its own."""
    settings = {"LLM_USER_PATH": str(tmp_path / "llm"), "HF_HUB_OFFLINE": "1"}

    def call(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(cli, arguments, env=settings | variables)

    return call


def logged(llm: Any, count: int = 1) -> list[dict[str, Any]]:
    return list(json.loads(llm("logs", "--json", "-n", str(count)).stdout))


def test_a_question_is_answered_and_logged(llm: Any) -> None:
    done = llm("-m", "d3mlx/embedded", QUESTION)
    assert (done.exit_code, done.stdout) == (0, ANSWER + "\n"), done.stderr
    (entry,) = logged(llm)
    assert (entry["model"], entry["input_tokens"], entry["output_tokens"]) == ("d3mlx/embedded", *TOKENS)
    model, tokenizer = load()
    stats = generate(model, tokenizer, [{"role": "user", "content": QUESTION}]).stats
    assert entry["response_json"] == {"forwards": stats.forwards, "rows": stats.rows, "finish_reason": "stop"}


def test_a_conversation_continues_with_its_system_prompt(llm: Any) -> None:
    llm("-m", "d3mlx/embedded", "--system", "Think.", QUESTION)
    done = llm("-c", QUESTION, "-o", "max_tokens", "4")
    assert (done.exit_code, done.stdout) == (0, f"{BEGINNING} \n"), done.stderr
    first, second = sorted(logged(llm, 2), key=lambda entry: int(entry["input_tokens"]))
    assert second["conversation_id"] == first["conversation_id"]
    # The token that begins a prompt is not repeated.
    assert second["input_tokens"] - first["input_tokens"] == sum(TOKENS) - 1
    assert second["response_json"]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "top_p", "3"], "Error: top-p must be above 0 and at most 1, not 3.0."),
        (["-o", "decoder", "none"], "Error: decoder must be one of "),
        (["-o", "max_tokens", "x"], "Input should be a valid integer"),
        (["-o", "steps", "3"], "Extra inputs are not permitted"),
        (["-m", "d3mlx/absent"], "Error: 'absent' is neither a folder nor a Hugging Face id"),
    ],
)
def test_mistakes_are_one_sentence(llm: Any, options: list[str], message: str) -> None:
    done = llm("-m", "d3mlx/embedded", *options, QUESTION, D3MLX_LLM_MODELS="absent")
    assert (done.exit_code, done.stdout, message in done.stderr) == (1, "", True), done.stderr


def test_the_environment_names_more_models(llm: Any, tmp_path: Path) -> None:
    folder = write_llada(tmp_path / "mine")
    names = f"org/model, {folder},,embedded"
    listed = llm("models", "list", "--query", "d3mlx", D3MLX_LLM_MODELS=names).stdout.splitlines()
    assert [line.split()[1] for line in listed] == [
        "d3mlx/embedded",
        "d3mlx/teacher",
        "d3mlx/org/model",
        "d3mlx/mine",
    ]
    done = llm("-m", "d3mlx/mine", "-o", "max_tokens", "8", "hi", D3MLX_LLM_MODELS=names)
    assert done.exit_code == 0, done.stderr


def test_the_command_lists_models_without_mlx(tmp_path: Path) -> None:
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path), "PYTHONPROFILEIMPORTTIME": "1"}
    command = [str(Path(sys.executable).with_name("llm")), "models", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    imported = {line.split()[-1] for line in done.stderr.splitlines()}
    assert "d3mlx/embedded" in done.stdout
    assert "d3mlx.errors" in imported
    assert not {"mlx.core", "mlx_lm", "transformers"} & imported
