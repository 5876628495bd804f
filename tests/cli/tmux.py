"""A terminal in which a program runs, with real keys: tmux."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType

import pytest

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

PATIENCE = 60.0
"""Seconds to wait for a text. A loaded machine may be slow."""


class Tmux:
    """A terminal of 90 columns and 30 lines with a command. It shows the exit status at the end."""

    def __init__(self, folder: Path, command: str):
        # A server that ends removes its socket, so the next one needs another.
        self.socket = str(folder / f"tmux-{uuid.uuid4().hex[:8]}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
        # The trap lets the shell live on when Ctrl-C reaches it too.
        shown = f"trap : INT; {command}; echo exit status $?; sleep 60"
        self.run("new-session", "-d", "-x", "90", "-y", "30", "sh", "-c", shown, environment=environment)

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """Run a tmux command on this terminal and return its output."""
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, *keys: str) -> None:
        """Send keys. A text is typed as it is; names such as Enter and C-c are keys."""
        self.run("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Send a text as a terminal with bracketed paste does."""
        self.run("set-buffer", text)
        self.run("paste-buffer", "-p")

    def shown(self) -> str:
        """Return the text on the screen and above it."""
        return self.run("capture-pane", "-p", "-J", "-S", "-200")

    def wait_for(self, text: str, times: int = 1) -> str:
        """Return the screen when it shows a text `times` times."""
        end = time.monotonic() + PATIENCE
        while (shown := self.shown()).count(text) < times:
            assert time.monotonic() < end, f"{text!r} did not appear:\n{shown}"
            time.sleep(0.05)
        return shown

    def __enter__(self) -> Tmux:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("kill-server")
