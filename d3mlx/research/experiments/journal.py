"""Several decoders on the same problems, side by side, with every answer kept: a run that was cut off goes on.

A journal is a folder of JSONL files, one for each process that takes a part of the problems. A file's first line says
what was measured.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from rich.progress import track

from d3mlx.decoding.decoder import Preset
from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.records import Record, Score, record_of, score
from d3mlx.evaluate.run import EvalModel, attempt
from d3mlx.evaluate.statistics import Difference, paired_difference
from d3mlx.evaluate.tasks import Task
from d3mlx.files import append, lock_file, writing

Item = TypeVar("Item")
CLOCK = time.process_time if mx.default_device() == mx.Device(mx.cpu) else time.perf_counter
"""Of processor time where the model runs on it, which other work on the machine does not lengthen as much."""


@dataclass(frozen=True)
class Part:
    """One of `count` processes that share the problems, numbered from 1."""

    number: int = 1
    count: int = 1

    @staticmethod
    def named(text: str) -> Part:
        """The part written as 1/2, the first of two. Raises ConfigError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(f"A part is written as 1/2, the first of two, not {text[:20]!r}.")
        return Part(number, count)

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.number - 1 :: self.count]

    @property
    def file(self) -> str:
        return f"part-{self.number}-of-{self.count}.jsonl"


@dataclass(frozen=True)
class Answers:
    """One decoder's records, by problem, and the seconds that each took."""

    records: dict[int, Record]
    seconds: dict[int, float]

    @property
    def score(self) -> Score:
        return score(list(self.records.values()))

    @property
    def seconds_per_problem(self) -> float:
        return sum(self.seconds.values()) / len(self.seconds)

    def against(self, other: Answers) -> Difference:
        """This accuracy minus the other's, on the problems of both."""
        both = sorted(self.records.keys() & other.records.keys())
        return paired_difference([other.records[i].correct for i in both], [self.records[i].correct for i in both])


def read_part(path: Path) -> tuple[dict[str, Any] | None, dict[str, Answers], int]:
    """What was measured, the answers by decoder, and the length in bytes of the lines that are whole.

    Raises DataError for damage other than a torn last line.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    first, *lines = content[:whole].splitlines() or [b"null"]
    found: dict[str, Answers] = {}
    try:
        for line in lines:
            values = json.loads(line)
            record = record_of(values)
            if not isinstance(values["seconds"], float):
                raise ValueError
            answers = found.setdefault(values["decoder"], Answers({}, {}))
            answers.records[record.index], answers.seconds[record.index] = record, values["seconds"]
        about = json.loads(first)
        if whole and not (isinstance(about, dict) and "decoder" not in about):
            raise ValueError
        return about, found, whole
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged; remove it to redo its part.") from error


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Answers]]:
    """A journal's parts as one. Raises DataError if there is none, or if they measured different things."""
    parts = [read_part(path) for path in sorted(folder.glob("part-*.jsonl"))]
    begun = [about for about, _, _ in parts if about is not None]
    if not begun or any(other != begun[0] for other in begun):
        raise DataError(f"{folder} holds no journal, or parts that measured different things; remove it to start anew.")
    merged = {}
    for name in dict.fromkeys(name for _, found, _ in parts for name in found):
        answers = [found[name] for _, found, _ in parts if name in found]
        records = {index: record for one in answers for index, record in one.records.items()}
        merged[name] = Answers(records, {index: s for one in answers for index, s in one.seconds.items()})
    return begun[0], merged


About = dict[str, Any]
"""What a measurement depends on, as plain JSON."""

Attempt = Callable[[int], Record]
"""Solves the problem of a number."""


def measure(
    subject: EvalModel, task: Task, presets: Mapping[str, Preset], indices: Sequence[int], place: tuple[Path, About]
) -> None:
    """Solve problems with several decoders: see `keep`. Their settings, defaults too, are part of what is measured."""
    path, about = place
    built = {name: repr(preset.build(subject.model.family)) for name, preset in presets.items()}
    attempts = {name: partial(attempt, subject, task, preset) for name, preset in presets.items()}
    keep(attempts, indices, (path, about | {"decoders": built}))


def keep(attempts: Mapping[str, Attempt], indices: Sequence[int], place: tuple[Path, About]) -> None:
    """Solve each problem in every way before the next one, so that all of them see the same machine.

    place: the part's file, and what is measured. Answers that any part in its folder holds are not asked for again.
    Raises ConfigError if one holds another measurement.
    """
    path, about = place
    solved = set()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        lock_file(file, path)
        for part in path.parent.glob("part-*.jsonl"):
            before, there, _ = read_part(part)
            if before is not None and before != about:
                raise ConfigError(f"{part} holds another measurement; remove it, or give another folder.")
            solved |= {(name, index) for name, answers in there.items() for index in answers.records}
        before, _, whole = read_part(path)
        file.truncate(whole)
        # What cannot be asked leaves nothing behind that another attempt would have to fit.
        head = b"" if before else json.dumps(about).encode() + b"\n"
        open_ones = [(index, name) for index in indices for name in attempts if (name, index) not in solved]
        for index, name in track(open_ones, f"solving, {path.parent.name}"):
            began = CLOCK()
            try:
                record = attempts[name](index)
            except KeyboardInterrupt:
                sys.stderr.write(f"What is solved is kept in {path.parent}; the same command goes on from there.\n")
                raise
            line = {"decoder": name, "seconds": CLOCK() - began, **asdict(record)}
            append(file, path, head + json.dumps(line).encode() + b"\n")
            head = b""


def finished(folder: Path, names: Iterable[str], problems: Iterable[int]) -> dict[str, Answers] | None:
    """The answers of these names to these problems, None where one is missing. Raises DataError."""
    if all(read_part(path)[0] is None for path in folder.glob("part-*.jsonl")):
        return None
    _, found = read(folder)
    wanted = sorted(problems)
    out = {}
    for name in names:
        answers = found.get(name, Answers({}, {}))
        if set(wanted) - answers.records.keys():
            return None
        out[name] = Answers({i: answers.records[i] for i in wanted}, {i: answers.seconds[i] for i in wanted})
    return out
