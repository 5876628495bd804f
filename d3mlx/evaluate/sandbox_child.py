"""The child process of `sandbox`: limit this interpreter, run program.py in the working folder, report the result.

Arguments: the file descriptor for the report, then the limits: CPU seconds, memory, file size, open files, processes.
This file runs in an isolated interpreter, so it imports only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "pty.", "webbrowser.", "os.system", "os.exec", "os.fork", "os.posix_spawn"),
    *(
        "os.spawn",
        "os.kill",
        "os.chmod",
        "os.chown",
        "os.link",
        "os.symlink",
        "os.unshare",
        "os.setns",
        "signal.",
        "sqlite3.",
    ),
)
"""Prefixes of refused audit events."""

CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.utime", "os.setxattr", "shutil.")
"""Prefixes of audit events whose first two arguments contain the paths to change."""


def limit(kinds: list[int], numbers: list[int]) -> None:
    """Set the limits of this process."""
    for kind, number in zip(kinds, numbers, strict=True):
        # macOS refuses some limits. The others stay in effect.
        # After the soft limit of CPU time the signal SIGXCPU gives the reason; after the hard limit SIGKILL does not.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (number, number + (kind == resource.RLIMIT_CPU)))


def leave_the_network() -> None:
    """Enter a namespace without a network, if the kernel allows it."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for name in [name for name in sys.modules if name.split(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]


def guard(folder: str) -> None:
    """Refuse all operations that a solution of a programming task does not need."""

    def inside(path: Any) -> bool:
        # The argument is not a path, but a descriptor, a mode or a length.
        if not isinstance(path, str | bytes | os.PathLike):
            return True
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or real.startswith(folder + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        refused = event.startswith(REFUSED)
        if event == "open":
            path, _, flags = arguments
            refused = bool(flags & WRITES) and not inside(path)
        elif event.startswith(CHANGES):
            refused = not all(map(inside, arguments[:2]))
        if refused:
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(hook)


def run(source: str) -> str:
    """Run the program. Return "passed", or the exception as text."""
    module = ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(source, "program.py", "exec"), module.__dict__)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "passed"


def main() -> None:
    """Run program.py under the limits of the command line."""
    descriptor, *numbers = map(int, sys.argv[1:])
    source = Path("program.py").read_text(encoding="utf-8")
    leave_the_network()
    kinds = [resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE]
    limit([*kinds, resource.RLIMIT_NPROC, resource.RLIMIT_CORE], [*numbers, 0])
    guard(str(Path.cwd().resolve()))
    os.write(descriptor, run(source).encode(errors="replace"))


if __name__ == "__main__":
    main()
