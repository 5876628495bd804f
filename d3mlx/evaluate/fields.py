"""Rows of data, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d3mlx.data.records import read_rows
from d3mlx.errors import DataError

Row = dict[str, Any]
Fields = Mapping[str, type]
"""Type of each field by name: str, or list (of str).

"a|b" accepts both names and returns the value as "a". "a?" is optional: a missing or null value becomes empty."""


def is_texts(value: object) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def rows_with(path: Path, fields: Fields) -> list[Row]:
    """Return the rows of a JSONL or parquet file with all their fields.

    Raises DataError that names file and row if a field of `fields` is missing.
    """
    return [checked(location, row, fields) for location, row in read_rows(path)]


def checked(location: str, row: Row, fields: Fields) -> Row:
    """Return the row with every field of `fields`. Raises DataError that begins with the location."""
    for names, kind in fields.items():
        required = not names.endswith("?")
        names = names.rstrip("?")
        present = [name for name in names.split("|") if name in row and (required or row[name] is not None)]
        if not present and not required:
            row[names] = kind()
            continue
        if not present:
            wanted = names.replace("|", "' or '")
            raise DataError(f"{location}: the field '{wanted}' is missing.")
        value = row[present[0]]
        kind_name = "a list of texts" if kind is list else "a text"
        if not (is_texts(value) if kind is list else isinstance(value, str)):
            raise DataError(f"{location}: the field '{present[0]}' must be {kind_name}.")
        row[names.split("|")[0]] = value
    return row
