"""The interpreter of a program in the child process of `sandbox`: refuse operations, run the program, report.

Arguments: the folder with program.py, and the descriptors of the report and of the key (see `sandbox_child`).

A refused operation ends the process. So a program cannot try them one after another, and does not get an exception
whose traceback leads to the guard. The report is the key if the program passes. While the program runs, the key is
neither in a variable nor in a descriptor, so no constant that a program writes passes.
"""

from __future__ import annotations

import _imp
import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

# The import of typing takes a third of the time to start, so only type checkers do it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "pty.", "webbrowser.", "sqlite3.", "fcntl.", "syslog.", "signal."),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill", "os.chmod", "os.chown", "os.lchown"),
    *("os.chflags", "os.lchflags", "os.link", "os.symlink", "os.setxattr", "os.removexattr", "os.chdir", "os.fchdir"),
    *("resource.set", "resource.prlimit", "refused."),
    # These lead from a program to other code: to the key, or to the guard.
    *("gc.get_", "sys._current_", "sys.settrace", "sys.setprofile", "sys.monitoring.", "sys.remote_exec"),
    *("sys.addaudithook", "cpython.run", "cpython.PyInterpreterState_New"),
)
"""Prefixes of refused audit events."""

CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.utime")
"""Audit events whose first argument is a path to change. With os.rename, the second is one, too."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

MODULES = frozenset(
    (
        *("_ctypes", "_sqlite3", "_dbm", "_gdbm", "_tkinter", "_curses", "_curses_panel", "readline", "termios", "nis"),
        *("_posixshmem", "_multiprocessing", "ossaudiodev", "_remote_debugging", "xxlimited"),
        *("_interpreters", "_interpchannels", "_interpqueues", "_xxsubinterpreters", "_xxinterpchannels"),
        *("_testcapi", "_testlimitedcapi", "_testinternalcapi", "_testclinic", "_testbuffer", "_ctypes_test"),
        *("_testsinglephase", "_testmultiphase", "_testexternalinspection"),
    )
)
"""Native modules with operations that have no audit event: they change files, share memory, or run other code."""

SILENT = {
    "_posixsubprocess": ("fork_exec",),
    "_signal": ("pidfd_send_signal", "setitimer", "alarm"),
    "posix": (
        *("mkfifo", "mknod", "memfd_create", "chroot", "pidfd_open", "openpty", "posix_openpt", "login_tty"),
        *("unshare", "setns", "setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "setpgid"),
    ),
}
"""Functions without an audit event, per module of native code, which are refused."""


def forget_native_code() -> None:
    """Refuse functions without an audit event, and make modules with other such functions unavailable."""
    # A module that is built into the interpreter could be loaded again, with all its functions.
    for name in set(sys.builtin_module_names) - MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("_posixsubprocess")
    for source, names in SILENT.items():
        for module in (source, {"posix": "os", "_signal": "signal"}.get(source, source)):
            for name in names:
                if hasattr(sys.modules.get(module), name):
                    setattr(sys.modules[module], name, partial(sys.audit, f"refused.{name}"))
    del _imp.create_builtin  # type: ignore[attr-defined]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


def guard(folder: str, report: int) -> None:
    """Refuse all operations that a solution of a programming task does not need."""
    forget_native_code()
    sys.addaudithook(hook_of(folder, report, os.path.dirname(os.__file__) + "/lib-dynload/"))  # noqa: PTH120


def hook_of(folder: str, report: int, library: str) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the audit hook. folder: where files may change. report: a descriptor. library: the native code to load.

    A program can replace globals, built-in functions and functions of modules. So the hook uses only its own arguments
    and methods of exact types. Paths are compared as text, which is correct for two reasons. The folder is always the
    working directory and has no links. Directories outside it cannot be opened, so `dir_fd` never leads outside.
    """

    def hook(
        event: str,
        arguments: tuple[Any, ...],
        folder: str = folder + "/",
        report: int = report,
        library: str = library,
        null: str = os.devnull,
        refused: tuple[str, ...] = REFUSED,
        changes: tuple[str, ...] = CHANGES,
        modules: frozenset[str] = MODULES,
        writes: int = WRITES,
        type: Any = type,
        text: Any = str,
        raw: Any = bytes,
        number: Any = int,
        stat: Any = os.stat,
        write: Any = os.write,
        leave: Any = os._exit,
        failure: Any = Exception,
    ) -> None:
        is_refused = event.startswith(refused)
        paths: tuple[Any, ...] = ()
        place = folder
        if event == "open":
            path, mode, flags = arguments
            changed = flags & writes or (type(mode) is text and ("w" in mode or "a" in mode or "+" in mode))
            if type(path) is number or (type(path) is text and path == null):
                paths = ()
            elif changed:
                paths = (path,)
            else:
                paths, place = (path,), "/"
        elif event in changes:
            paths = arguments[: 2 if event == "os.rename" else 1]
            if event == "os.truncate" and type(paths[0]) is number:
                paths = ()
        elif event == "import" and arguments[1] is not None:
            paths, place = arguments[1:2], library
        for path in paths:
            if type(path) is raw:
                path = path.decode("utf-8", "surrogateescape")
            if type(path) is not text:
                is_refused = True
                break
            parts: list[str] = []
            for part in (path if path.startswith("/") else folder + path).split("/"):
                if part == "..":
                    # Outside the folder a link can be before "..", so the path as text is not the real one.
                    is_refused = is_refused or not ("/" + "/".join(parts) + "/").startswith(folder)
                    del parts[-1:]
                elif part and part != ".":
                    parts.append(part)
            real = "/" + "/".join(parts)
            if place == "/":
                # A file to read. Only os.open can open a directory, and it has no mode. 0o40000 is a directory's type.
                try:
                    is_directory = mode is None and stat(path)[0] & 0o170000 == 0o40000
                except failure:
                    is_directory = mode is None
                is_outside = real.startswith("/proc/") or (is_directory and not (real + "/").startswith(folder))
            elif place == library:
                is_outside = not real.startswith(library) or parts[-1].partition(".")[0] in modules
            else:
                is_outside = not real.startswith(folder) and not (event == "open" and real + "/" == folder)
            is_refused = is_refused or is_outside
        if is_refused:
            write(report, f"PermissionError: {event.removeprefix('refused.')} is not allowed here".encode())
            leave(1)

    return hook


def run(source: bytes, report: int, write: Callable[[int, bytes], int], leave: Callable[[int], Any]) -> bytes:
    """Run the program. Return b"" if it passes, else report the exception and leave."""
    module = ModuleType("program")
    # Other code must not find the module of this file by its name.
    sys.modules["program"] = sys.modules["__main__"] = module
    try:
        exec(compile(source.decode(), "program.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        write(report, f"{type(error).__name__}: {error}"[:300].encode(errors="replace"))
        leave(1)
        raise
    return b""


def main() -> None:
    """Run the program of the folder."""
    folder, report, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with open("program.py", "rb") as file:  # noqa: PTH123
        source = file.read()
    os.remove("program.py")  # noqa: PTH107
    sys.argv[:] = ["program.py"]
    guard(folder, report)
    # The program can replace the functions of modules, so they are looked up before it runs. The key is read before it
    # runs, too. Then no name leads to the key: it is only on the interpreter's stack, until `run` returns.
    write, read, leave = os.write, os.read, os._exit
    write(report, read(keys, 100) + run(source, report, write, leave))
    leave(0)


if __name__ == "__main__":
    main()
