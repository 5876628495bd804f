"""The command line itself: unknown commands, completion, closed streams."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import d3mlx as package
from d3mlx.errors import ConfigError
from tests.cli.conftest import COMMAND


def test_an_unknown_command_is_told_the_one_that_is_meant(d3mlx: Any) -> None:
    done = d3mlx("genrate", "x")
    assert (done.status, done.out) == (2, "")
    assert "generate" in done.err


@pytest.mark.parametrize(("words", "place", "wanted"), [("d3mlx dec", 1, "decoders"), ("d3mlx nope --ca", 2, "")])
def test_completion_never_fails(words: str, place: int, wanted: str) -> None:
    environment = {**os.environ, "_D3MLX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (wanted, "")


def test_a_model_loads_with_standard_input_closed(llada: str) -> None:
    command = f'exec "{COMMAND}" generate hi --model "{llada}" --max-tokens 4 <&-'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_model_library() -> None:
    code = (
        "import sys\n"
        "from d3mlx.cli.main import run\n"
        "sys.argv = ['d3mlx', '--help']\n"
        "try:\n    run()\n"
        "except SystemExit:\n    print(sorted({'mlx.core', 'mlx_lm', 'numpy', 'transformers'} & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_numbers_of_numpy_are_numbers() -> None:
    block = package.D3LLM(block_size=np.int64(8), threshold=np.float32(0.5)).build("llada")  # type: ignore[arg-type]
    assert block == package.D3LLM(block_size=8, threshold=0.5).build("llada")
    for wrong in ({"block_size": True}, {"block_size": 2.5}, {"threshold": "x"}, {"threshold": 10**400}):
        with pytest.raises(ConfigError):
            package.D3LLM(**wrong)  # type: ignore[arg-type]
    for wrong in ({"temperature": "x"}, {"seed": None}, {"seed": 2.5}, {"top_k": 2.5}, {"end_penalty": -1}):
        with pytest.raises(ConfigError):
            package.Sampling(**wrong)  # type: ignore[arg-type]
