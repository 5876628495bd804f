"""Append-only files of JSON lines. A killed run loses only the record that it was writing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from d3mlx.errors import ConfigError, DataError
from d3mlx.files import append, lock_file, refuse_special, write_text, writing

Item = TypeVar("Item")

SHOWN, SHOWN_BEFORE = 60, 16
"""Maximum characters of a setting's value in an error, and how many of them come before the first difference."""


@dataclass(frozen=True)
class Settings:
    """Everything that the records of a run depend on. A run can be continued only with the same settings.

    values: plain JSON; a missing name equals None. what: name of the records in an error. remedy: end of that error,
    which says what the user can do. not_compared: names that are only information for the reader.
    """

    values: Mapping[str, Any]
    what: str
    remedy: str
    not_compared: Set[str] = frozenset()

    def check(self, path: Path, before: Mapping[str, Any]) -> None:
        """Raise ConfigError unless `before`, the settings at `path`, are the same."""
        difference = first_difference(before, self.values, self.not_compared)
        if difference is not None:
            raise ConfigError(f"{path} contains {self.what} with another {difference}; {self.remedy}")

    def write(self, path: Path) -> None:
        """Write the values to a JSON file. Raises ConfigError."""
        write_text(path, json.dumps(self.values, indent=2, sort_keys=True) + "\n")


def first_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], not_compared: Set[str] = frozenset()
) -> str | None:
    """Return the name and both values of the first setting that differs, as text; None if all are the same."""
    for name in sorted((before.keys() | now.keys()) - not_compared):
        old, new = before.get(name), now.get(name)
        if old != new:
            inner = first_difference(old, new) if isinstance(old, dict) and isinstance(new, dict) else None
            return f"{name.replace('_', ' ')} {inner or '({}, not {})'.format(*contrast(old, new))}"
    return None


def contrast(old: Any, new: Any) -> list[str]:
    """Return two different values of plain JSON as two short one-line texts that show where they differ."""
    plain = all(isinstance(value, str) and value.isprintable() and value == value.strip() for value in (old, new))
    texts = [value if plain else "none" if value is None else json.dumps(value, sort_keys=True) for value in (old, new)]
    if max(map(len, texts)) <= SHOWN:
        return texts
    differing = (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    start = max(0, next(differing, min(map(len, texts))) - SHOWN_BEFORE)
    end = start + SHOWN
    return [f"{'...' if start else ''}{text[start:end]}{'...' if text[end:] else ''}" for text in texts]


def json_line(values: Mapping[str, Any]) -> bytes:
    """Return an object as one line of UTF-8. A lone surrogate, which UTF-8 cannot encode, becomes its JSON escape."""
    return json.dumps(values, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def parse_json(line: bytes) -> Any:
    """Return the JSON value of a line. Raises ValueError with a reason for the user."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("not valid JSON") from error


@dataclass(frozen=True)
class Content(Generic[Item]):
    """The complete lines of a log.

    settings: the first line of a log that begins with settings; None if there is no line yet. size: bytes of all
    complete lines.
    """

    settings: dict[str, Any] | None
    records: list[Item]
    size: int


@dataclass(frozen=True)
class OpenLog(Generic[Item]):
    """A log that only this run writes to.

    head: the line of settings to write before the first record, or empty. records: the records at the time of opening.
    """

    path: Path
    file: IO[bytes]
    head: bytes
    records: list[Item]

    def append(self, values: Mapping[str, Any]) -> None:
        """Write one record and flush it, so that a kill after this call cannot lose it. Raises ConfigError."""
        head = self.head if self.head and not os.fstat(self.file.fileno()).st_size else b""
        append(self.file, self.path, head + json_line(values))

    def clear(self) -> None:
        """Remove all records. Raises ConfigError."""
        with writing(self.path):
            self.file.truncate(0)


@dataclass(frozen=True)
class AppendLog(Generic[Item]):
    """One file with a JSON record per line. One run at a time appends to it, and later runs continue it.

    path: the file; it does not exist while there are no records. parse: return the record of a line's JSON value, or
    raise ValueError with the reason. remedy: end of the errors about damage, which says what the user can do.
    begins_with_settings: the first line contains the settings of the run and is written with the first record.
    identity: return a text that must be unique among the records; None permits duplicates.
    """

    path: Path
    parse: Callable[[Any], Item]
    remedy: str
    begins_with_settings: bool = False
    identity: Callable[[Item], str] | None = None

    def read(self) -> Content[Item]:
        """Return the complete lines. An incomplete last line comes from a killed run and is ignored.

        Raises DataError for damage anywhere else.
        """
        refuse_special([self.path], DataError)
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}; {self.remedy}") from error
        size = content.rfind(b"\n") + 1
        settings = None
        records: list[Item] = []
        identities: set[str] = set()
        for number, line in enumerate(content[:size].split(b"\n")[:-1], 1):
            try:
                values = parse_json(line)
                if self.begins_with_settings and number == 1:
                    settings = self.settings_of(values)
                else:
                    records.append(self.new_record(values, identities))
            except ValueError as error:
                raise DataError(f"{self.path}, line {number}: {error}; {self.remedy}") from error
        return Content(settings, records, size)

    def settings_of(self, values: Any) -> dict[str, Any]:
        """Return the settings in the first line. Raises ValueError if it has none, or is a record."""
        try:
            self.parse(values)
        except ValueError:
            if isinstance(values, dict):
                return values
        raise ValueError("not the settings of a run")

    def new_record(self, values: Any, identities: set[str]) -> Item:
        """Return a line's record and add its identity to `identities`. Raises ValueError."""
        record = self.parse(values)
        if self.identity is not None:
            identity = self.identity(record)
            if identity in identities:
                raise ValueError(f"{identity} appears twice")
            identities.add(identity)
        return record

    @contextmanager
    def opened(self, settings: Settings | None = None) -> Iterator[OpenLog[Item]]:
        """Open the log for appending and remove an incomplete last line. A log that stays empty leaves no file.

        settings: required if the log begins with settings. Raises ConfigError if another run is writing to the log or
        began it with other settings, and DataError as `read` does. After an error the file is unchanged.
        """
        refuse_special([self.path], DataError)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab")
        with file:
            lock_file(file, self.path)
            try:
                content = self.read()
                if settings is not None and content.settings is not None:
                    settings.check(self.path, content.settings)
                with writing(self.path):
                    file.truncate(content.size)
                head = json_line(settings.values) if settings is not None and self.begins_with_settings else b""
                yield OpenLog(self.path, file, head, content.records)
            finally:
                if not file.closed and not os.fstat(file.fileno()).st_size:
                    self.path.unlink(missing_ok=True)
