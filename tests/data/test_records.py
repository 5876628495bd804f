"""Tests of files of records: usual encodings and layouts, and errors about invalid files."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.data.records import read_rows
from d3mlx.errors import DataError

ROWS = [{"prompt": "Größe 你好 🦙", "n": 1}, {"prompt": "b", "messages": None, "answer": 7}]
READ = [{"prompt": "Größe 你好 🦙", "n": 1}, {"prompt": "b", "answer": 7}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)

READABLE: dict[str, bytes] = {
    "plain": LINES.encode(),
    "windows": LINES.replace("\n", "\r\n\r\n").encode(),
    "byte order mark": codecs.BOM_UTF8 + LINES.encode(),
    "utf-16": LINES.encode("utf-16"),
    "utf-16, big-endian": codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"),
    "utf-32": LINES.encode("utf-32"),
    "array": json.dumps(ROWS, indent=1).encode(),
    "array with a mark": codecs.BOM_UTF8 + json.dumps(ROWS).encode(),
    "array in utf-16": json.dumps(ROWS, ensure_ascii=False).encode("utf-16"),
}

INVALID: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "contains no records"),
    "empty array": (b"[]", "contains no records"),
    "torn": (b'{"a": 1}\n{"a": ', "record 2: not valid JSON"),
    "number": (b'{"a": 1}\n7\n', "record 2: the record is not a JSON object"),
    "arrays": (b"[1]\n[2]\n", "record 1: the record is not a JSON object"),
    "array of texts": (b'["a", "b"]', "record 1: the record is not a JSON object"),
    "nulls": (b'{"a": null}\n', "record 1: the record is empty"),
    "digits": (b'{"a": ' + b"1" * 5000 + b"}\n", "record 1: a number has too many digits"),
    "depth": (b"{" + b'"a":[' * 200_000 + b"\n", "record 1"),
    "latin-1": (b'{"a": 1}\n{"a": "\xe9"}\n', "record 2: not UTF-8 text"),
    "half a utf-16": (codecs.BOM_UTF16_LE + b'{\x00"', "not valid UTF-16 text"),
    "surrogate": (b'{"a": "\\ud800"}\n', "record 1: the text contains an incomplete surrogate pair"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b\x08\x00", "compressed"),
    "bzip2": (b"BZh91AY&SY", "compressed"),
    "xz": (b"\xfd7zXZ\x00", "compressed"),
    "zip": (b"PK\x03\x04aaaa", "archive"),
}


@pytest.mark.parametrize("name", READABLE)
def test_usual_encodings_and_layouts(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(READABLE[name])
    assert [row for _, row in read_rows(path)] == READ


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_file_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, reason = INVALID[name]
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    assert reason in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@given(rows=st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers()), min_size=1), min_size=1))
def test_every_encoding_returns_the_same_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("rows") / "data"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes(text.encode(encoding))
        assert [row for _, row in read_rows(path)] == rows


def test_parquet_is_detected_by_its_first_bytes(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "data.jsonl"
    every_column = [{"messages": None, "answer": None} | row for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(every_column), path)
    assert [row for _, row in read_rows(path)] == READ
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Cannot read the parquet file .* after record 0"):
        list(read_rows(path))
