"""A sandbox for programs of a model: a separate process with limits.

Each program runs in a new process with an empty environment and a temporary folder (see `sandbox_child`). Time, memory,
file size and open files are limited. The interpreter and, on Linux, the kernel refuse other programs, sockets, native
code, and changes outside the folder.

The sandbox does not stop an attacker. docs/evaluation.md lists the limits of its protection. If you do not trust a
model, run the evaluation in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from d3mlx.errors import ConfigError

CONFINED = Path(__file__).with_name("sandbox_child.py")
PASSED, FAILED = "passed", "failed: "


@dataclass(frozen=True)
class Limits:
    """Limits of a program. memory: bytes of address space. file_size: bytes. seconds: in total."""

    cpu_seconds: int = 3
    memory: int = 2 << 30
    file_size: int = 1 << 20
    open_files: int = 64
    seconds: float = 10.0


@dataclass(frozen=True)
class Outcome:
    """Result of a program. why: None if it passed, else its exception or the reason for the stop."""

    passed: bool
    why: str | None = None


class Sandbox:
    """Runs programs under `limits`. Raises ConfigError if the user did not allow it, or if no program can run."""

    def __init__(self, task: str, allowed: bool, limits: Limits | None = None):
        if not allowed:
            raise ConfigError(
                f"{task} runs programs that the model writes. Read about their sandbox in the documentation, "
                "then allow them with --allow-code-execution."
            )
        self.limits = limits or Limits()
        trial = self.run("assert 1 + 1 == 2\n")
        if not trial.passed:
            raise ConfigError(f"Cannot run programs on this machine: {trial.why}.")

    def run(self, program: str) -> Outcome:
        """Run a program. It passes if it raises no exception and does not exit."""
        folder = Path(tempfile.gettempdir()).resolve() / f"d3mlx-{secrets.token_hex(8)}"
        try:
            answer = self.answer(folder, program.encode(errors="replace"))
        finally:
            # The child process removes its folder, unless it was killed.
            if folder.exists():
                subprocess.run(["rm", "-rf", str(folder)], check=False)
        if answer == PASSED:
            return Outcome(True)
        return Outcome(False, answer.removeprefix(FAILED) or "its process was killed")

    def answer(self, folder: Path, program: bytes) -> str:
        """Return the answer of the child process. It ends when this process does, because its input ends then."""
        arguments = [str(argument) for argument in (folder, len(program), *astuple(self.limits))]
        answer = b""
        # If the child process was killed, writing its input fails, and there is no answer.
        with (
            contextlib.suppress(BrokenPipeError),
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(CONFINED), *arguments],
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                    "LC_ALL": "C.UTF-8",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as child,
        ):
            assert child.stdin and child.stdout
            child.stdin.write(program)
            child.stdin.flush()
            answer = child.stdout.read()
        return answer.decode(errors="replace")
