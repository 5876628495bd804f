"""The options of `d3mlx serve`, and its errors before it listens."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, d3mlx  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--api-key", ""], "The API key must have ASCII letters"),
        (["--api-key", "s\u00e9sam"], "The API key must have ASCII letters"),
        (["--api-key", "two words"], "The API key must have ASCII letters"),
        (["--host", ""], "--host must not be empty"),
        (["--host", "256.1.1.1"], "Cannot listen on 256.1.1.1, port 8080: "),
        (["--allowed-origins", "example.com"], "'example.com' is not an origin"),
        (["--decoder", "fast"], "decoder must be one of"),
    ],
)
def test_mistakes_are_one_sentence(d3mlx: Any, arguments: list[str], message: str) -> None:  # noqa: F811
    done = d3mlx("serve", *arguments)
    assert (done.status, done.err.count("\n"), done.err.startswith("Error: ")) == (1, 1, True)
    assert message in done.err


def test_a_port_that_is_in_use(d3mlx: Any) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = d3mlx("serve", "--port", str(port))
    assert done.err == (
        f"Error: Cannot listen on 127.0.0.1, port {port}: Address already in use. Choose another --host or --port.\n"
    )


def test_missing_libraries_are_named(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, COMMAND, "serve"], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "Error: The server needs more libraries. Install them with: pip install 'd3mlx[serve]'.\n"
