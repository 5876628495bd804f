"""Records of JSONL, JSON and parquet files. Every error names the file and the row, which in JSONL is its line."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3mlx.errors import DataError

SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
"""Escapes of which JSON text must contain pairs; Python's reader takes a single one."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
"""First bytes of a file to its encoding. The mark of UTF-16 begins the one of UTF-32, so the longer ones come first."""

OTHER_FORMATS = {
    b"version https://git-lfs": "is a pointer of Git LFS without its data; fetch the file with: git lfs pull",
    b"\x1f\x8b": "is compressed; decompress it first",
    b"PK\x03\x04": "is an archive; unpack it first",
    b"(\xb5/\xfd": "is compressed; decompress it first",
    b"BZh": "is compressed; decompress it first",
    b"\xfd7zXZ\x00": "is compressed; decompress it first",
}
PARQUET = b"PAR1"


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, record) for each row of a JSONL, JSON or parquet file; the place is for errors.

    A column whose value is null is left out: a table has every column in every row. Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    with path.open("rb") as file:
        start = file.read(64)
    for magic, what in OTHER_FORMATS.items():
        if start.startswith(magic):
            raise DataError(f"{path} {what}.")
    empty = True
    for place, value in parquet_rows(path) if start.startswith(PARQUET) else json_rows(path, start):
        if not isinstance(value, dict):
            raise DataError(f"{place}: the row is not a JSON object.")
        record = {name: entry for name, entry in value.items() if entry is not None}
        if not record:
            raise DataError(f"{place}: the row is empty.")
        empty = False
        yield place, record
    if empty:
        raise DataError(f"{path} contains no rows.")


def json_rows(path: Path, start: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a JSONL file, or the entries of a file that is one JSON array.

    start: the first bytes of the file.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    if start.decode(encoding, errors="ignore").lstrip().startswith("["):
        try:
            entries = json.loads(path.read_bytes().decode(encoding))
        except (ValueError, RecursionError):
            # An array in every line, or damage: the lines say which.
            entries = None
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            yield from ((f"{path}, row {number}", entry) for number, entry in enumerate(entries, 1))
            return
    for number, line in enumerate(lines_of(path, encoding), 1):
        place = f"{path}, row {number}"
        try:
            text = line.decode() if isinstance(line, bytes) else line
            if text.strip():
                yield place, parsed(text, place)
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 text ({error.reason}).") from None


def lines_of(path: Path, encoding: str) -> Iterator[str | bytes]:
    """Yield the lines of a file: bytes of UTF-8, whose errors then belong to a line, and text of other encodings."""
    if encoding == "utf-8":
        with path.open("rb") as file:
            yield from file
        return
    try:
        with path.open(encoding=encoding, newline="\n") as text:
            yield from text
    except UnicodeError as error:
        raise DataError(f"{path} is not valid {encoding.removesuffix('-sig').upper()} text: {error}.") from None


def parsed(text: str, place: str) -> Any:
    """Return the value of a line of JSON. Raises DataError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON ({error}).") from None
    except ValueError:
        raise DataError(f"{place}: a number has more digits than can be read.") from None
    except RecursionError:
        raise DataError(f"{place}: the row is nested too deeply.") from None
    if SURROGATE.search(text) and not is_unicode(value):
        raise DataError(f"{place}: the text contains half of a surrogate pair, which is not a character.")
    return value


def is_unicode(value: Any) -> bool:
    """Return whether all text of a value of JSON is made of characters."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a parquet file. Raises DataError."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(f"{path} is a parquet file; install its reader with: pip install pyarrow.") from None
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except GeneratorExit:
        raise
    except DataError:
        raise
    except Exception as error:
        # Arrow's errors share no base class of Python's.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as parquet after row {number}: {reason}") from error
