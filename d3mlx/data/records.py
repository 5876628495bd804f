"""Rows of JSONL and parquet files. Every error names the file and the row, which in JSONL is its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3mlx.errors import DataError

SURROGATE = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)
"""Escapes of which JSON text must hold pairs; Python's reader takes a single one."""


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a JSONL or parquet file; the place is for errors. Raises DataError."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    found = False
    for place, row in parquet_rows(path) if path.suffix == ".parquet" else jsonl_rows(path):
        if not isinstance(row, dict) or not row:
            raise DataError(f"{place}: the row is empty or no JSON object.")
        found = True
        yield place, row
    if not found:
        raise DataError(f"{path} holds no rows.")


def jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}, row {number}"
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{place}: not valid JSON ({str(error).splitlines()[0]}).") from None
            except RecursionError:
                raise DataError(f"{place}: the row is nested too deeply.") from None
            if SURROGATE.search(line) and not is_unicode(row):
                raise DataError(f"{place}: the text holds half of a surrogate pair, which is no character.")
            yield place, row


def is_unicode(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"{path} is a parquet file; install its reader with: pip install pyarrow.") from None
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
