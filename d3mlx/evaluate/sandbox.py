"""A sandbox for programs of a model: a separate process with limits.

Each program runs in a new interpreter with an empty environment in a temporary folder. Time, memory, file size, open
files and processes are limited. An audit hook in the interpreter refuses sockets, other programs, native code, and
writing outside the folder. On Linux the process has no network, if the kernel allows users to create network
namespaces.

The sandbox does not stop an attacker. The program runs under your account and can read all your files. Native code of
other packages can bypass the audit hook. macOS does not enforce the memory limit. If you do not trust a model, run the
evaluation in a container or a virtual machine.
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
    """Limits of a program. memory: bytes of address space. file_size: bytes. processes: new ones. seconds: in total."""

    cpu_seconds: int = 3
    memory: int = 2 << 30
    file_size: int = 1 << 20
    open_files: int = 64
    processes: int = 0
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
        with tempfile.TemporaryDirectory(prefix="d3mlx-", ignore_cleanup_errors=True) as folder:
            (Path(folder) / "program.py").write_text(program, encoding="utf-8", errors="replace")
            read_end, write_end = os.pipe()
            try:
                return self.watch(Path(folder), read_end, write_end)
            finally:
                os.close(read_end)

    def watch(self, folder: Path, read_end: int, write_end: int) -> Outcome:
        """Start the child process, wait for it, and return its outcome."""
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
        # Do not block: a process that the program started may still have the pipe open.
        os.set_blocking(read_end, False)
        with contextlib.suppress(BlockingIOError):
            report = os.read(read_end, 1000).decode(errors="replace")
            if report:
                return Outcome(True) if report == PASSED else Outcome(False, report)
        return Outcome(False, f"ended by itself with status {status}")
