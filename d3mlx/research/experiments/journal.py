"""Answers of several decoders to the same problems, on disk, so that an interrupted measurement can continue.

A journal is a folder of JSONL files, one per process that solves a part of the problems. The first line of a file
contains the settings of the measurement.
"""

from __future__ import annotations

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

from d3mlx.append_log import AppendLog, Content, Settings
from d3mlx.decoding.decoder import Preset
from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.records import Record, Score, record_of, score
from d3mlx.evaluate.run import EvalModel, attempt
from d3mlx.evaluate.statistics import Difference, paired_difference
from d3mlx.evaluate.tasks import Task

Item = TypeVar("Item")
CLOCK = time.process_time if mx.default_device() == mx.Device(mx.cpu) else time.perf_counter
"""Processor time in seconds if the model runs on the CPU, because other programs affect it less; else wall time."""


@dataclass(frozen=True)
class Part:
    """One of `count` processes that share the problems, numbered from 1."""

    number: int = 1
    count: int = 1

    @staticmethod
    def named(text: str) -> Part:
        """Return the part for a text such as 1/2, the first of two. Raises ConfigError."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(f"Invalid part {text[:20]!r}. Use, for example, 1/2 for the first of two parts.")
        return Part(number, count)

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.number - 1 :: self.count]

    @property
    def file(self) -> str:
        return f"part-{self.number}-of-{self.count}.jsonl"


@dataclass(frozen=True)
class Answers:
    """One decoder's records and their seconds, by problem."""

    records: dict[int, Record]
    seconds: dict[int, float]

    @property
    def score(self) -> Score:
        return score(list(self.records.values()))

    @property
    def seconds_per_problem(self) -> float:
        return sum(self.seconds.values()) / len(self.seconds)

    def against(self, other: Answers) -> Difference:
        """Return the accuracy minus that of `other`, on the problems that both solved."""
        both = sorted(self.records.keys() & other.records.keys())
        return paired_difference([other.records[i].correct for i in both], [self.records[i].correct for i in both])


@dataclass(frozen=True)
class Solved:
    """One line of a journal: a decoder's record of a problem, and its seconds."""

    decoder: str
    seconds: float
    record: Record

    @staticmethod
    def of(values: Any) -> Solved:
        """Return the answer in a line's JSON value. Raises ValueError with the reason."""
        record = record_of(values)
        if not (isinstance(values.get("decoder"), str) and isinstance(values.get("seconds"), float)):
            raise ValueError("decoder or seconds are damaged")
        return Solved(values["decoder"], values["seconds"], record)


def part_log(path: Path) -> AppendLog[Solved]:
    """Return the log of one part of a journal."""
    return AppendLog(path, Solved.of, "remove the file to redo its part.", begins_with_settings=True)


def read_parts(folder: Path) -> dict[Path, Content[Solved]]:
    """Return the content of each part that has settings. Raises DataError if a file is damaged."""
    parts = {path: part_log(path).read() for path in sorted(folder.glob("part-*.jsonl"))}
    return {path: content for path, content in parts.items() if content.settings is not None}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Answers]]:
    """Return a journal's settings, and the answers of all its parts by decoder.

    Raises DataError if there is no journal, or if its parts measured different things.
    """
    parts = list(read_parts(folder).values())
    if not parts or any(part.settings != parts[0].settings for part in parts):
        raise DataError(
            f"{folder} does not contain a journal, or its parts measured different things. Remove it to measure again."
        )
    answers: dict[str, Answers] = {}
    for solved in (solved for part in parts for solved in part.records):
        decoder = answers.setdefault(solved.decoder, Answers({}, {}))
        decoder.records[solved.record.index] = solved.record
        decoder.seconds[solved.record.index] = solved.seconds
    return parts[0].settings or {}, answers


About = dict[str, Any]
"""Everything that a measurement depends on, as plain JSON."""

Attempt = Callable[[int], Record]
"""Solves the problem with a number, and returns the record."""


def measure(
    subject: EvalModel, task: Task, presets: Mapping[str, Preset], indices: Sequence[int], path: Path, about: About
) -> None:
    """Solve problems with several decoders, as `solve_missing` does.

    The settings of the decoders and their defaults are part of the measurement's settings.
    """
    built = {name: repr(preset.build(subject.model.family)) for name, preset in presets.items()}
    attempts = {name: partial(attempt, subject, task, preset) for name, preset in presets.items()}
    solve_missing(attempts, indices, path, about | {"decoders": built})


def solve_missing(attempts: Mapping[str, Attempt], indices: Sequence[int], path: Path, about: About) -> None:
    """Solve each problem with every attempt before the next problem, so that load on the machine affects all alike.

    path: file of the part. about: settings of the measurement. Answers in any part of the folder are not computed
    again. Raises ConfigError if a part has other settings.
    """
    settings = Settings(about, "another measurement,", "remove the file, or give another folder.")
    with part_log(path).opened(settings) as log:
        parts = read_parts(path.parent)
        for part, content in parts.items():
            settings.check(part, content.settings or {})
        solved = {(line.decoder, line.record.index) for content in parts.values() for line in content.records}
        unsolved = [(index, name) for index in indices for name in attempts if (name, index) not in solved]
        for index, name in track(unsolved, f"solving, {path.parent.name}"):
            began = CLOCK()
            try:
                record = attempts[name](index)
            except KeyboardInterrupt:
                sys.stderr.write(f"The answers so far are in {path.parent}. The same command continues from there.\n")
                raise
            log.append({"decoder": name, "seconds": CLOCK() - began, **asdict(record)})


def finished(folder: Path, names: Iterable[str], problems: Iterable[int]) -> dict[str, Answers] | None:
    """Return the answers of these decoders to these problems, or None if one is missing. Raises DataError."""
    if not read_parts(folder):
        return None
    _, answers = read(folder)
    wanted = sorted(problems)
    out = {}
    for name in names:
        decoder = answers.get(name, Answers({}, {}))
        if set(wanted) - decoder.records.keys():
            return None
        out[name] = Answers({i: decoder.records[i] for i in wanted}, {i: decoder.seconds[i] for i in wanted})
    return out
