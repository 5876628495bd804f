"""The supervisor: it starts the process that runs the cases, notices its death or silence, and counts."""

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from tests.fuzz.worker import LIMIT, work

START = 60
"""Seconds that a process may need to start."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damage everything that d3mlx reads.")
    parser.add_argument("--seconds", type=float, default=60, help="Time to run.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the cases.")
    parser.add_argument("--case", type=int, help="Run this case only, and keep its files.")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


class Worker:
    """A process that runs cases from a number on, and the lines that it writes."""

    def __init__(self, seed: int, first: int, only: bool):
        command = [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--worker", str(first)]
        command += ["--case", str(first)] if only else []
        # Names of models must not reach the network.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200"}
        environment.pop("HF_TOKEN", None)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
        )
        self.rest = b""

    def line(self, seconds: float) -> dict[str, Any] | None:
        """Return the next record; None if the process has ended or is silent for this time."""
        assert self.process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                return None
            self.rest += piece
        text, _, self.rest = self.rest.partition(b"\n")
        return dict(json.loads(text))

    def end(self) -> str:
        """End the process, and return how it ended."""
        if self.process.poll() is None:
            time.sleep(0.1)
        silent = self.process.poll() is None
        self.process.kill()
        _, err = self.process.communicate()
        why = "hang" if silent else f"abort with status {self.process.returncode}"
        return f"{why}: {err.decode(errors='replace')[-1500:]}"


def say(text: str) -> None:
    """Print a line that may contain invalid text."""
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")
    sys.stdout.flush()


def show(record: dict[str, Any]) -> None:
    """Print a case and what is wrong with it."""
    say(f"\ncase {record['case']} ({record['kind']}): {record['fault']}, exit status {record['status']}")
    say("  d3mlx " + shlex.join(record.get("arguments", []))[:1500])
    say("  " + record.get("stderr", "").strip().replace("\n", "\n  "))


def main() -> int:
    """Run the cases and print the counts. Return 1 if a case failed."""
    given = arguments()
    if given.worker is not None:
        work(given.seed, given.worker, given.case is not None, given.case is not None)
        return 0
    until = time.monotonic() + given.seconds
    number, statuses, kinds, faults = given.case or 0, Counter[Any](), Counter[str](), 0
    worker = Worker(given.seed, number, given.case is not None)
    waiting = START
    while time.monotonic() < until:
        record = worker.line(waiting)
        if record is None:
            record = {"case": number, "kind": "?", "status": "?", "fault": worker.end()}
            worker, waiting = Worker(given.seed, number + 1, False), START
        elif "begins" in record:
            number, waiting = record["begins"], 3 * LIMIT
            continue
        statuses[record["status"]] += 1
        kinds[record["kind"]] += 1
        if record["fault"]:
            faults += 1
        if record["fault"] or given.case is not None:
            show(record)
        if given.case is not None:
            break
    worker.end()
    exits = ", ".join(f"{count} with exit status {status}" for status, count in sorted(statuses.items(), key=str))
    say(f"{sum(statuses.values())} cases ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}): {exits}.")
    say(f"{faults} failures.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
