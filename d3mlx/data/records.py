"""Records of JSONL, JSON and parquet files. Every error names the file and the record. In JSONL, a record is a line."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3mlx.errors import DataError
from d3mlx.files import refuse_special
from d3mlx.text import is_unicode

SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
"""Escapes that must form pairs in JSON text. Python's reader accepts single ones."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
"""Encoding by the first bytes of a file. Longer marks come first, because that of UTF-32 begins with that of UTF-16."""

OTHER_FORMATS = {
    b"version https://git-lfs": "is a Git LFS pointer without its data. Download the data with: git lfs pull",
    b"\x1f\x8b": "is compressed. Decompress it first",
    b"PK\x03\x04": "is an archive. Unpack it first",
    b"(\xb5/\xfd": "is compressed. Decompress it first",
    b"BZh": "is compressed. Decompress it first",
    b"\xfd7zXZ\x00": "is compressed. Decompress it first",
}
PARQUET = b"PAR1"


def check_file(path: Path) -> None:
    """Raise DataError if a data file does not exist, or is a special file such as a device."""
    if path.is_dir():
        raise DataError(f"{path} is a folder. Give a file.")
    refuse_special([path], DataError)
    if not path.exists():
        raise DataError(f"File {path} does not exist.")


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, record) for each row of a JSONL, JSON or parquet file. The location is for errors.

    Columns with the value null are left out, because a table has every column in every row. Raises DataError.
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(64)
    for magic, reason in OTHER_FORMATS.items():
        if start.startswith(magic):
            raise DataError(f"{path} {reason}.")
    empty = True
    for location, value in parquet_rows(path) if start.startswith(PARQUET) else json_rows(path, start):
        if not isinstance(value, dict):
            raise DataError(f"{location}: the record is not a JSON object.")
        record = {name: entry for name, entry in value.items() if entry is not None}
        if not record:
            raise DataError(f"{location}: the record is empty.")
        empty = False
        yield location, record
    if empty:
        raise DataError(f"{path} contains no records.")


def json_rows(path: Path, start: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a JSONL file, or the entries of a JSON array. Raises DataError.

    start: the first bytes of the file.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    if start.decode(encoding, errors="ignore").lstrip().startswith("["):
        try:
            entries = json.loads(path.read_bytes().decode(encoding))
        except (ValueError, RecursionError):
            # The file has an array in every line, or is damaged. Reading by lines shows which.
            entries = None
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            yield from ((f"{path}, record {number}", entry) for number, entry in enumerate(entries, 1))
            return
    for number, line in enumerate(lines_of(path, encoding), 1):
        location = f"{path}, record {number}"
        try:
            text = line.decode() if isinstance(line, bytes) else line
            if text.strip():
                yield location, parsed(text, location)
        except UnicodeDecodeError as error:
            raise DataError(f"{location}: not UTF-8 text ({error.reason}).") from None


def lines_of(path: Path, encoding: str) -> Iterator[str | bytes]:
    """Yield the lines of a file: bytes for UTF-8, so that errors can name a line, and text for other encodings."""
    if encoding == "utf-8":
        with path.open("rb") as file:
            yield from file
        return
    try:
        with path.open(encoding=encoding, newline="\n") as text:
            yield from text
    except UnicodeError as error:
        raise DataError(f"{path} is not valid {encoding.removesuffix('-sig').upper()} text: {error}.") from None


def parsed(text: str, location: str) -> Any:
    """Return the value in a line of JSON. Raises DataError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{location}: not valid JSON ({error}).") from None
    except ValueError:
        raise DataError(f"{location}: a number has too many digits.") from None
    except RecursionError:
        raise DataError(f"{location}: the record is nested too deeply.") from None
    if SURROGATE.search(text) and not is_unicode(value):
        raise DataError(f"{location}: the text contains an incomplete surrogate pair.")
    return value


def parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a parquet file. Raises DataError."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            f"Cannot read the parquet file {path} without pyarrow. Install it with: pip install pyarrow."
        ) from None
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, record {number}", row
    except GeneratorExit:
        raise
    except DataError:
        raise
    except Exception as error:
        # Arrow's errors share no base class.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"Cannot read the parquet file {path} after record {number}: {reason}") from error
