"""One process that runs cases through the entry point of the command line, and judges how they end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.base import Base, write_base
from tests.fuzz.cases import Case, case

LIMIT = 20
"""Seconds that a case may take."""

NOTES = re.compile(
    r"This is the bundled demonstration model\.|It does not know the words|Training needs about|"
    r"\d+ trajectories in|The adapters are in|Interrupted\."
)
"""Lines that may come before an error."""


class TooLong(BaseException):
    """Raised in a case that takes too long."""


@dataclass(frozen=True)
class Ending:
    """Exit status and output of a case."""

    status: int
    out: str
    err: str


@contextmanager
def captured(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Send the output of this process, also of native code, to two files."""
    paths = folder / "stdout", folder / "stderr"
    kept = [os.dup(number) for number in (1, 2)]
    for number, path in zip((1, 2), paths, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    try:
        yield paths
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, file in zip((1, 2), kept, strict=True):
            os.dup2(file, number)
            os.close(file)


def run_command(arguments: list[str], folder: Path) -> Ending:
    """Run the command line in this process."""
    from d3mlx.cli.main import run

    def late(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, late)
    sys.argv = ["d3mlx", *arguments]
    status = 0
    with captured(folder) as (out, err):
        signal.alarm(LIMIT)
        try:
            run()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        finally:
            signal.alarm(0)
    return Ending(status, *(path.read_bytes().decode(errors="replace") for path in (out, err)))


def fault(done: Ending, made: Case, here: Path) -> str | None:
    """Return what is wrong with the end of a case, None if nothing is."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    if done.status not in (0, 1, 2):
        return f"exit status {done.status}"
    if "TooLong" in done.err:
        return "hang"
    if wrong := re.search(r"Error: Unexpected|Traceback|panicked|RuntimeWarning|Exception ignored", done.err):
        return wrong[0]
    if done.status == 1:
        errors = [line for line in lines if line.startswith("Error: ")]
        if len(errors) != 1 or lines[-1] != errors[0] or not lines[-1].endswith("."):
            return "not one sentence"
        if rest := [line for line in lines[:-1] if not NOTES.match(line)]:
            return f"other text: {rest[0][:100]}"
        if len(lines[-1]) > 1200:
            return "long error"
    if done.status == 2 and "Error" not in done.err:
        return "no error"
    return leftover(done, made, here)


def leftover(done: Ending, made: Case, here: Path) -> str | None:
    """Return the name of a half-written output."""
    partial = [path for path in here.rglob("*partial*") if not path.is_symlink()]
    if partial:
        return f"left {partial[0].name}"
    if done.status and made.output is not None and made.output.exists():
        return "left its output"
    return None


def run_case(seed: int, number: int, base: Base, keep: bool = False) -> dict[str, Any]:
    """Run a case in a folder of its own. Return its record."""
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    here = folder / "here"
    here.mkdir()
    before = Path.cwd()
    os.chdir(here)
    began = time.monotonic()
    try:
        kind, made = case(seed, number, base, here)
        done = run_command(made.arguments, folder)
        wrong = fault(done, made, here)
    finally:
        os.chdir(before)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    record = {"case": number, "kind": kind, "status": done.status, "fault": wrong, "arguments": made.arguments}
    record["seconds"] = round(time.monotonic() - began, 2)
    return record | (
        {"stderr": done.err[-3000:], "stdout": done.out[-1000:], "folder": str(here)} if wrong or keep else {}
    )


def work(seed: int, first: int, keep: bool, only: bool) -> None:
    """Run cases from `first` on, until this process is ended. Write a line before and after each case."""
    report = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as folder:
        base = write_base(Path(folder))
        number = first
        while True:
            report.write(json.dumps({"begins": number}) + "\n")
            report.flush()
            report.write(json.dumps(run_case(seed, number, base, keep)) + "\n")
            report.flush()
            if only:
                return
            number += 1
