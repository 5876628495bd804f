"""Records of an evaluation on disk, with one line per problem, and totals over them.

A folder contains `config.json`, with all settings that change records, and one JSONL file per point (a setting of the
decoder). Records are appended when they are scored. So a killed run loses only the problems in progress.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from d3mlx.append_log import AppendLog, Settings
from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.statistics import wilson
from d3mlx.files import holds_files, json_object, locked

CONFIG = "config.json"
LARGEST = 2**53
"""Largest count in a record, so that a float can represent sums of counts."""

NOT_COMPARED = frozenset({"versions"})
"""Entries of config.json for information only: a run may continue with other versions."""


@dataclass(frozen=True)
class Record:
    """Result of one problem: the verdict, the cost of the generation (see `Stats`), the seed of its noise, its text.

    tokens: number of tokens of the answer, up to a stop text.
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
"""Allowed types of a field of a record, by its annotation."""


def record_of(values: Any) -> Record:
    """Return the record in the JSON value of a line. Other entries are ignored. Raises ValueError."""
    known = {field.name: KINDS[str(field.type)] for field in fields(Record)}
    if not (isinstance(values, dict) and all(type(values.get(name, ...)) in kinds for name, kinds in known.items())):
        raise ValueError("not a record of an evaluation")
    if any(type(values[name]) is int and not 0 <= values[name] <= LARGEST for name in known):
        raise ValueError("a count is negative or too large")
    return Record(**{name: values[name] for name in known})


@dataclass(frozen=True)
class Score:
    """Totals over records. Ratios are computed from totals, so a long answer has more weight.

    The published evaluations leave the first ten answers out of TPF, as a warm-up for times. Here all answers count.
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
        """Return the share of correct answers."""
        return self.correct / self.problems if self.problems else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the accuracy, as shares."""
        return wilson(self.correct, self.problems)

    @property
    def strict_accuracy(self) -> float | None:
        """Return the share of answers that are correct in strict form; None for tasks without one."""
        return None if self.strict is None else self.strict / self.problems

    @property
    def tokens_per_forward(self) -> float:
        """Return tokens per forward (TPF)."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def rows_per_token(self) -> float:
        """Return rows per token (RPT); infinite without tokens."""
        return self.rows / self.tokens if self.tokens else float("inf")


def score(records: Sequence[Record]) -> Score:
    """Return the totals over records."""
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
    """The setting of a point: an option of the decoder and its value, or None for the defaults."""

    option: str | None = None
    value: float | None = None

    @property
    def name(self) -> str:
        """Return the stem of the point's file."""
        return "default" if self.option is None else f"{self.option}-{self.value!r}"

    @property
    def label(self) -> str:
        """Return the setting for people to read."""
        return "default" if self.option is None else f"{self.option} {self.value:g}"

    @staticmethod
    def named(name: str) -> Setting:
        """Return the setting for the stem of a file. Raises ValueError if it is not one."""
        if name == "default":
            return Setting()
        option, _, value = name.partition("-")
        setting = Setting(option, int(value) if value.isdigit() else float(value))
        if not option or setting.name != name or math.isnan(setting.value or 0):
            raise ValueError("not the name of a setting")
        return setting


def read_points(folder: Path) -> tuple[dict[str, Any], dict[Setting, list[Record]]]:
    """Return config.json of an evaluation's folder, and the records of its points. Raises DataError."""
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder} is not an evaluation: it has no {CONFIG}.")
    points = {}
    for file in sorted(folder.glob("*.jsonl")):
        try:
            setting = Setting.named(file.stem)
        except ValueError as error:
            raise DataError(f"{file} is not an evaluation result. Remove it from the folder.") from error
        points[setting] = read_records(file)
    config = read_config(path)
    if "task" not in config:
        raise DataError(f"{folder} is not an evaluation: its {CONFIG} has no task.")
    return config, points


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in a config.json. Raises DataError if it is damaged."""
    config = json_object(path)
    if config is None or not isinstance(config.get("task", ""), str):
        raise DataError(f"{path} is damaged. Choose another folder.")
    return config


def log_of(path: Path) -> AppendLog[Record]:
    """Return the log of a point, with one record per problem."""
    return AppendLog(
        path,
        record_of,
        "remove the file to run the evaluation again.",
        identity=lambda record: f"problem {record.index}",
    )


def read_records(path: Path) -> list[Record]:
    """Return the records of a point in the order of their problems. Raises DataError if the file is damaged."""
    return sorted(log_of(path).read().records, key=lambda record: record.index)


class Folder:
    """The folder of a running evaluation. Only one process may write to it."""

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def opened(self, config: dict[str, Any]) -> Iterator[Folder]:
        """Lock the folder and write `config`, plain JSON. Raises ConfigError if the folder has another one."""
        self.refuse_foreign()
        settings = Settings(config, "an evaluation", "choose another --out.", NOT_COMPARED)
        path = self.path / CONFIG
        with locked(self.path):
            if path.exists():
                settings.check(self.path, read_config(path))
            else:
                settings.write(path)
            yield self

    def refuse_foreign(self) -> None:
        """Raise ConfigError if the folder contains files but no evaluation."""
        path = self.path / CONFIG
        if holds_files(self.path) and not (path.is_file() and "task" in read_config(path)):
            raise ConfigError(f"{self.path} contains other files. Choose an empty or a new folder for --out.")

    def log(self, setting: Setting) -> AppendLog[Record]:
        """Return the log of a setting's records."""
        return log_of(self.path / f"{setting.name}.jsonl")
