"""Runs programs that a model wrote, in a confined process of their own.

What holds: a new interpreter with an empty environment in a temporary folder; limits of time, memory, file size, open
files and processes; no sockets, other programs, foreign code or writing outside its folder, which an audit hook in
that interpreter refuses; on Linux, where the kernel lets users have them, a network namespace without a network. What
does not: this is no barrier against an attacker. The program runs as you and can read what you can read, an audit hook
can be got around by native code of other packages, and macOS does not enforce the memory limit. Whoever does not trust
a model runs the evaluation in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from d3mlx.errors import ConfigError

CONFINED = Path(__file__).with_name("sandbox_child.py")
PASSED = "passed"


@dataclass(frozen=True)
class Limits:
    """Seconds of CPU time, bytes of address space, bytes of a file, open files, new processes; seconds in all."""

    cpu_seconds: int = 3
    memory: int = 2 << 30
    file_size: int = 1 << 20
    open_files: int = 64
    processes: int = 0
    seconds: float = 10.0


@dataclass(frozen=True)
class Outcome:
    """why: None if the program ran to its end, else its exception or how it was stopped."""

    passed: bool
    why: str | None = None


class Sandbox:
    """Runs programs under `limits`. Raises ConfigError if the user did not allow it, or if no program gets through."""

    def __init__(self, task: str, allowed: bool, limits: Limits | None = None):
        if not allowed:
            raise ConfigError(
                f"{task} runs programs that the model wrote; read in the README what confines them, "
                "then allow it with --allow-code-execution."
            )
        self.limits = limits or Limits()
        trial = self.run("assert 1 + 1 == 2\n")
        if not trial.passed:
            raise ConfigError(f"Programs cannot be run on this machine: {trial.why}.")

    def run(self, program: str) -> Outcome:
        """Run one program to its end; passed if nothing was raised and it did not end itself."""
        with tempfile.TemporaryDirectory(prefix="d3mlx-", ignore_cleanup_errors=True) as folder:
            (Path(folder) / "program.py").write_text(program, encoding="utf-8", errors="replace")
            read_end, write_end = os.pipe()
            try:
                return self.watch(Path(folder), read_end, write_end)
            finally:
                os.close(read_end)

    def watch(self, folder: Path, read_end: int, write_end: int) -> Outcome:
        numbers = [str(number) for number in astuple(self.limits)[:-1]]
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-B", str(CONFINED), str(write_end), *numbers],
                cwd=folder,
                env={"HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[write_end],
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        try:
            status = child.wait(self.limits.seconds)
        except subprocess.TimeoutExpired:
            return Outcome(False, f"stopped after {self.limits.seconds:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if status == -signal.SIGXCPU:
            return Outcome(False, f"stopped after {self.limits.cpu_seconds} s of CPU time")
        # Not waited for: a process that the program left behind might hold the other end.
        os.set_blocking(read_end, False)
        with contextlib.suppress(BlockingIOError):
            report = os.read(read_end, 1000).decode(errors="replace")
            if report:
                return Outcome(True) if report == PASSED else Outcome(False, report)
        return Outcome(False, f"ended by itself with status {status}")
