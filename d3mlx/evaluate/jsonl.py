"""Rows of JSONL data files, checked field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d3mlx.errors import DataError

Row = dict[str, Any]
Fields = Mapping[str, type]
"""Name of a field to its type, str or list (of str). "a|b" takes either name and gives it as the first one."""


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_rows(path: Path, fields: Fields) -> list[Row]:
    """The rows of a JSONL file with the wanted fields and all others they have; only its end may be empty lines.

    Raises DataError that names the file and the row, counted as its line.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if not text:
        raise DataError(f"{path} holds no rows.")
    return [read_row(path, number, line, fields) for number, line in enumerate(text.split("\n"), 1)]


def read_row(path: Path, number: int, line: str, fields: Fields) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, row {number}: not JSON ({error.msg}); each line must be one JSON object.") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, row {number}: not a JSON object.")
    for names, kind in fields.items():
        found = [name for name in names.split("|") if name in row]
        if not found:
            wanted = names.replace("|", "' or '")
            raise DataError(f"{path}, row {number}: the field '{wanted}' is missing.")
        value = row[found[0]]
        kind_name = "a list of texts" if kind is list else "a text"
        if not (is_texts(value) if kind is list else isinstance(value, str)):
            raise DataError(f"{path}, row {number}: the field '{found[0]}' must be {kind_name}.")
        row[names.split("|")[0]] = value
    return row
