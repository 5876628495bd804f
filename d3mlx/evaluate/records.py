"""What an evaluation leaves on disk: one line a problem, appended when it is scored, and totals over them.

A folder holds `config.json`, everything that the records depend on, and one JSONL file for each point (a setting of the
decoder). A killed run loses the problems in progress and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.statistics import wilson
from d3mlx.files import append, holds_files, json_object, locked, write_text

CONFIG = "config.json"
LARGEST = 2**53
"""Of a count in a record; sums of such are numbers that a float can hold."""

NOT_COMPARED = ("versions",)
"""Entries of config.json that are kept for the reader; a run may go on under another version."""


@dataclass(frozen=True)
class Record:
    """One problem: the verdict, what the generation took (see `Stats`), the seed of its noise, its text.

    tokens: those of the text that counts, so where a stop text cut the answer, none from it on.
    """

    index: int
    correct: bool
    strict: bool | None
    answer: str | None
    why: str | None
    seed: int
    prompt_tokens: int
    tokens: int
    forwards: int
    rows: int
    prefill_rows: int
    text: str


KINDS: dict[str, set[type]] = {
    "int": {int},
    "bool": {bool},
    "str": {str},
    "bool | None": {bool, NoneType},
    "str | None": {str, NoneType},
}
"""What a field of a record may hold, by its annotation."""


def record_of(values: Any) -> Record:
    """The record in a line of JSON, which may hold more. Raises ValueError if it holds none."""
    known = {field.name: KINDS[str(field.type)] for field in fields(Record)}
    if not (isinstance(values, dict) and all(type(values.get(name, ...)) in kinds for name, kinds in known.items())):
        raise ValueError("no record of an evaluation")
    if any(type(values[name]) is int and not 0 <= values[name] <= LARGEST for name in known):
        raise ValueError("a count that no answer has")
    return Record(**{name: values[name] for name in known})


@dataclass(frozen=True)
class Score:
    """Totals over records. Ratios are of totals, so a long answer weighs more.

    The published evaluations leave the first ten answers out of TPF, as a warm-up of their clock; here all count.
    """

    problems: int
    correct: int
    strict: int | None
    tokens: int
    forwards: int
    rows: int
    prefill_rows: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.problems if self.problems else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, as shares."""
        return wilson(self.correct, self.problems)

    @property
    def strict_accuracy(self) -> float | None:
        return None if self.strict is None else self.strict / self.problems

    @property
    def tokens_per_forward(self) -> float:
        """TPF."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def rows_per_token(self) -> float:
        """RPT; infinite where no token counted."""
        return self.rows / self.tokens if self.tokens else float("inf")


def score(records: Sequence[Record]) -> Score:
    strict = [record.strict for record in records if record.strict is not None]
    return Score(
        problems=len(records),
        correct=sum(record.correct for record in records),
        strict=sum(strict) if strict else None,
        tokens=sum(record.tokens for record in records),
        forwards=sum(record.forwards for record in records),
        rows=sum(record.rows for record in records),
        prefill_rows=sum(record.prefill_rows for record in records),
    )


@dataclass(frozen=True)
class Setting:
    """What tells the points of a run apart: an option of the decoder and its value; None is the decoder as it is."""

    option: str | None = None
    value: float | None = None

    @property
    def name(self) -> str:
        return "default" if self.option is None else f"{self.option}-{self.value!r}"

    @property
    def label(self) -> str:
        return "default" if self.option is None else f"{self.option} {self.value:g}"

    @staticmethod
    def named(name: str) -> Setting:
        """The setting of a file's stem. Raises ValueError for any other file."""
        if name == "default":
            return Setting()
        option, _, value = name.partition("-")
        setting = Setting(option, int(value) if value.isdigit() else float(value))
        if not option or setting.name != name or math.isnan(setting.value or 0):
            raise ValueError("no name that a setting has")
        return setting


def read_points(folder: Path) -> tuple[dict[str, Any], dict[Setting, list[Record]]]:
    """config.json of an evaluation's folder, and the records of its points. Raises DataError."""
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder} is no evaluation: it holds no {CONFIG}.")
    points = {}
    for file in sorted(folder.glob("*.jsonl")):
        try:
            setting = Setting.named(file.stem)
        except ValueError as error:
            raise DataError(f"{file} is no point of an evaluation; take it out of the folder.") from error
        points[setting] = read_records(file)[0]
    config = read_config(path)
    if "task" not in config:
        raise DataError(f"{folder} is no evaluation: its {CONFIG} names no task.")
    return config, points


def read_config(path: Path) -> dict[str, Any]:
    config = json_object(path)
    if config is None or not isinstance(config.get("task", ""), str):
        raise DataError(f"{path} is damaged; choose another folder.")
    return config


def read_records(path: Path) -> tuple[list[Record], int]:
    """The records of a point in the order of their problems, and the length in bytes of the lines that are whole.

    A torn last line is what a killed run leaves; it does not count. Raises DataError for damage anywhere else.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    records: dict[int, Record] = {}
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record = record_of(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: no record of an evaluation; remove the file to redo it."
            ) from error
        if record.index in records:
            raise DataError(
                f"{path}, line {number}: problem {record.index} is there twice; remove the file to redo it."
            )
        records[record.index] = record
    return [records[index] for index in sorted(records)], whole


class Folder:
    """The folder of a running evaluation, which nobody else writes to meanwhile."""

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def opened(self, config: dict[str, Any]) -> Iterator[Folder]:
        """Claim the folder for `config`, a value of plain JSON. Raises ConfigError if it holds anything else."""
        self.refuse_foreign()
        with locked(self.path):
            self.settle(config)
            yield self

    def refuse_foreign(self) -> None:
        """Raise ConfigError if the folder holds files and no evaluation."""
        path = self.path / CONFIG
        if holds_files(self.path) and not (path.is_file() and "task" in read_config(path)):
            raise ConfigError(f"{self.path} holds other files; choose an empty or a new folder for --out.")

    def settle(self, config: dict[str, Any]) -> None:
        path = self.path / CONFIG
        if not path.exists():
            write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
            return
        before = read_config(path)
        for name in sorted({*before, *config} - set(NOT_COMPARED)):
            if before.get(name) != config.get(name):
                raise ConfigError(
                    f"{self.path} holds an evaluation with another {name.replace('_', ' ')} "
                    f"({short(before.get(name))}, not {short(config.get(name))}); choose another --out."
                )

    def point(self, setting: Setting) -> Path:
        return self.path / f"{setting.name}.jsonl"

    def records(self, setting: Setting) -> list[Record]:
        return read_records(self.point(setting))[0]

    @contextmanager
    def appending(self, setting: Setting) -> Iterator[Appender]:
        """Open a point's file behind its last whole line."""
        path = self.point(setting)
        _, whole = read_records(path)
        with path.open("ab") as file:
            file.truncate(whole)
            yield Appender(path, file)


class Appender:
    def __init__(self, path: Path, file: Any):
        self.path, self.file = path, file

    def add(self, record: Record) -> None:
        line = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False) + "\n"
        append(self.file, self.path, line.encode("utf-8", errors="replace"))


def short(value: Any) -> str:
    """A value of a config in a sentence."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
