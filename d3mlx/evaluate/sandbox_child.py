"""The child process of `sandbox`: run a program in a confined process, and answer about it.

Arguments: the folder to create for the program, the length of the program in bytes, then the limits: CPU seconds,
memory, file size, open files, seconds. The program is on standard input. The answer on standard output is "passed", or
"failed: " and the reason.

This process stays outside the limits. It ends the program and removes the folder at the end, or when its input ends,
because then `sandbox` was killed. It gives a random key to the program's process (see `sandbox_guard`), and only a
report that is this key passes.

This file and `sandbox_linux` and `sandbox_guard` run in isolated interpreters, so they import only the standard
library.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location

KEY = 16
"""Length of the key in bytes."""

LONGEST = 1000
"""Length in bytes of the longest report that is read."""

HERE = os.path.dirname(__file__)  # noqa: PTH120


def limit(cpu_seconds: int, memory: int, file_size: int, open_files: int, seconds: float) -> None:
    """Set the limits of this process."""
    numbers = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_CORE: 0,
    }
    # Linux counts threads as processes. There the kernel refuses processes in another way (see sandbox_linux).
    if not sys.platform.startswith("linux"):
        numbers[resource.RLIMIT_NPROC] = 0
    for kind, number in numbers.items():
        # macOS refuses some limits. The others stay in effect.
        # After the soft limit of CPU time the signal SIGXCPU gives the reason; after the hard limit SIGKILL does not.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (number, number + (kind == resource.RLIMIT_CPU)))
    # If both other processes were killed, this signal ends the program.
    signal.alarm(int(seconds) + 2)


def start(folder: str, report: int, keys: int, limits: tuple[int, int, int, int, float]) -> None:
    """Limit this process and replace it with the interpreter of the program."""
    parent = os.getppid()
    os.setsid()
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    limit(*limits)
    if sys.platform.startswith("linux"):
        # The folder of this file is not on the path of modules.
        spec = spec_from_file_location("sandbox_linux", f"{HERE}/sandbox_linux.py")
        assert spec and spec.loader
        linux = module_from_spec(spec)
        spec.loader.exec_module(linux)
        linux.confine(folder, parent)
    for descriptor in (report, keys):
        os.set_inheritable(descriptor, True)
    environment = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LC_ALL")}
    guard = f"{HERE}/sandbox_guard.py"
    # -S: other packages are not available, so a program has the same outcome on every machine.
    command = [sys.executable, "-I", "-S", "-B", guard, folder, str(report), str(keys)]
    os.execve(sys.executable, command, environment)


def supervise(report: int, seconds: float) -> tuple[bytes, str | None, bool]:
    """Wait for the end of the program. Return its report, the reason for a stop, and whether `sandbox` still runs."""
    deadline = time.monotonic() + seconds
    message = b""
    while (left := deadline - time.monotonic()) > 0:
        ready = select.select([sys.stdin, report], [], [], left)[0]
        if sys.stdin in ready:
            return message, "stopped", False
        part = os.read(report, LONGEST) if ready else b""
        message = (message + part)[:LONGEST]
        if ready and not part:
            return message, None, True
    return message, f"stopped after {seconds:g} s", True


def answer(message: bytes, key: bytes, status: int, cpu_seconds: int) -> str:
    """Return the answer about a program that ended."""
    if message == key:
        return "passed"
    if status == -signal.SIGXCPU:
        return f"failed: stopped after {cpu_seconds} s of CPU time"
    return f"failed: {message.decode(errors='replace') or f'ended by itself with status {status}'}"


def main() -> None:
    """Run the program under the limits of the command line."""
    folder, size = sys.argv[1], int(sys.argv[2])
    cpu_seconds, memory, file_size, open_files = map(int, sys.argv[3:7])
    seconds = float(sys.argv[7])
    source = sys.stdin.buffer.read(size)
    os.mkdir(folder, 0o700)  # noqa: PTH102
    with open(f"{folder}/program.py", "wb") as file:  # noqa: PTH123
        file.write(source)
    report, write_report = os.pipe()
    keys, write_keys = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            start(folder, write_report, keys, (cpu_seconds, memory, file_size, open_files, seconds))
        finally:
            os._exit(1)
    os.close(write_report)
    key = os.urandom(KEY)
    os.write(write_keys, key)
    message, stopped, is_watched = supervise(report, seconds)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if is_watched:
        os.write(1, (f"failed: {stopped}" if stopped else answer(message, key, status, cpu_seconds)).encode())
    try:
        os.rmdir(folder)  # noqa: PTH106
    except OSError:
        # shutil.rmtree fails on deep trees.
        os.execvp("rm", ["rm", "-rf", folder])


if __name__ == "__main__":
    main()
