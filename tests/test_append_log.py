"""Append-only logs that are truncated at any byte, continued, shared, begun with other settings, or damaged."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.append_log import SHOWN, AppendLog, Settings, contrast, first_difference
from d3mlx.errors import ConfigError, DataError

VALUES = {"model": "tiny", "decoders": {"a": "A(1)", "b": "B(2)"}, "seed": None}
SETTINGS = Settings(VALUES, "a test", "choose another file.", frozenset({"versions"}))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
records_of_logs = st.lists(st.tuples(st.integers(), st.text()), max_size=6)


def parse(values: Any) -> tuple[int, str]:
    if not (isinstance(values, dict) and isinstance(values.get("n"), int) and isinstance(values.get("text"), str)):
        raise ValueError("not a record of the test")
    return values["n"], values["text"]


def log_at(path: Path, begins_with_settings: bool = False, unique: bool = False) -> AppendLog[tuple[int, str]]:
    identity = (lambda record: f"record {record[0]}") if unique else None
    return AppendLog(path, parse, "remove the file.", begins_with_settings, identity)


def write(log: AppendLog[tuple[int, str]], records: list[tuple[int, str]], values: Settings = SETTINGS) -> None:
    with log.opened(values) as opened:
        for n, text in records:
            opened.append({"n": n, "text": text})


@contextmanager
def new_path() -> Iterator[Path]:
    """Yield a path in a new folder, one per example of a property."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "log.jsonl"


@given(records=records_of_logs, more=records_of_logs, headed=st.booleans(), data=st.data())
def test_a_log_truncated_at_any_byte_is_a_prefix_of_its_records_and_can_be_continued(
    records: list[tuple[int, str]], more: list[tuple[int, str]], headed: bool, data: st.DataObject
) -> None:
    with new_path() as path:
        log = log_at(path, headed)
        write(log, records)
        assert path.exists() == bool(records)
        content = path.read_bytes() if records else b""
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        before = log.read()
        whole_lines = content[:cut].count(b"\n")
        assert before.records == records[: max(0, whole_lines - headed)]
        assert before.settings == (VALUES if headed and whole_lines else None)
        assert before.size == content.rfind(b"\n", 0, cut) + 1
        assert path.read_bytes() == content[:cut], "reading changes nothing"
        write(log, more)
        assert log.read().records == before.records + more
        # Complete lines keep their bytes, and the file has only complete lines.
        after = path.read_bytes() if path.exists() else b""
        assert after.startswith(content[: before.size])
        assert after.count(b"\n") == len(before.records + more) + (headed and bool(after))


def test_a_text_with_a_lone_surrogate_is_written_as_utf8_and_read_back(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log.jsonl")
    write(log, [(1, "é \ud800 \u2028 \r")])
    (tmp_path / "log.jsonl").read_bytes().decode("utf-8")
    assert log.read().records == [(1, "é \ud800 \u2028 \r")]


def test_a_second_writer_is_refused_and_does_not_disturb_the_first(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = log_at(path)
    with log.opened() as opened:
        with pytest.raises(ConfigError, match=r"Another run is writing to .*log\.jsonl"):
            write(log, [(2, "b")])
        assert path.exists(), "a refused writer does not remove the empty file of the first one"
        opened.append({"n": 1, "text": "a"})
        with pytest.raises(ConfigError, match="Another run"):
            write(log, [(2, "b")])
        assert log.read().records == [(1, "a")], "a reader needs no lock"
    write(log, [(2, "b")])
    assert log.read().records == [(1, "a"), (2, "b")]


def test_a_file_that_was_removed_after_it_was_opened_gets_no_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier writer may remove its empty file between the open and the lock of the next writer."""
    path = tmp_path / "log.jsonl"
    real_open = Path.open

    def open_then_remove(self: Path, *arguments: Any) -> Any:
        file = real_open(self, *arguments)
        self.unlink()
        return file

    monkeypatch.setattr(Path, "open", open_then_remove)
    with pytest.raises(ConfigError, match="Another run"):
        write(log_at(path), [(1, "a")])


WRITER = """
import sys
from pathlib import Path
from tests.test_append_log import SETTINGS, log_at

with log_at(Path(sys.argv[1]), begins_with_settings=True).opened(SETTINGS) as log:
    n = len(log.records)
    while True:
        log.append({"n": n, "text": "x" * (n % 50 * 1000)})
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
        n += 1
"""


def test_a_killed_writer_loses_no_record_that_it_has_appended(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = log_at(path, begins_with_settings=True)
    appended = 0
    for lines in (3, 40, 80):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            appended = int(process.stdout.readline()) + 1
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        appended = max([appended, *(int(line) + 1 for line in rest[:-1])])
        content = log.read()
        assert [n for n, _ in content.records] == list(range(len(content.records)))
        assert len(content.records) >= appended and content.settings == VALUES


def test_after_the_records_are_cleared_the_settings_are_written_again(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log.jsonl", begins_with_settings=True)
    with log.opened(SETTINGS) as opened:
        opened.append({"n": 1, "text": "a"})
        opened.clear()
        assert log.read().records == [] and log.read().settings is None
        opened.append({"n": 2, "text": "b"})
    assert (log.read().settings, log.read().records) == (VALUES, [(2, "b")])
    with log.opened(SETTINGS) as opened:
        opened.clear()
    assert not log.path.exists()


def test_a_writer_that_fails_leaves_no_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    with pytest.raises(RuntimeError, match="out of memory"), log_at(path, True).opened(SETTINGS):
        raise RuntimeError("out of memory")
    assert not path.exists()


def test_a_full_disk_is_a_short_error_and_loses_one_record(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log.opened() as opened:
        opened.append({"n": 1, "text": "a"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            with pytest.raises(ConfigError, match=r"log\.jsonl cannot be written: File too large\. Make room"):
                opened.append({"n": 2, "text": "b" * 1000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.path.stat().st_size == 50
    write(log, [(3, "c")])
    assert log.read().records == [(1, "a"), (3, "c")]


def test_other_settings_are_refused_by_name_and_the_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = log_at(path, begins_with_settings=True)
    write(log, [(1, "a")])
    with path.open("ab") as file:
        file.write(b'{"torn')
    before = path.read_bytes()
    changes: list[tuple[dict[str, Any], str]] = [
        ({"model": "large"}, "another model (tiny, not large); choose another file."),
        ({"decoders": {"a": "A(1)", "b": "B(3)"}}, "another decoders b (B(2), not B(3)); "),
        ({"decoders": {"a": "A(1)"}}, 'another decoders b ("B(2)", not none); '),
        ({"seed": 3}, "another seed (none, not 3); "),
        ({"num_fewshot": 5}, "another num fewshot (none, not 5); "),
    ]
    for change, sentence in changes:
        with pytest.raises(ConfigError) as caught:
            write(log, [(2, "b")], Settings(VALUES | change, SETTINGS.what, SETTINGS.remedy))
        assert f"{path} contains a test with {sentence}" in str(caught.value)
        assert path.read_bytes() == before
    same = VALUES | {"versions": {"mlx": "9"}, "added later": None}
    write(log, [(2, "b")], Settings(same, SETTINGS.what, SETTINGS.remedy, SETTINGS.not_compared))
    assert log.read().records == [(1, "a"), (2, "b")]


def test_long_values_show_the_part_that_differs() -> None:
    old = "Selective(" + "x" * 200 + ", near=8)"
    assert contrast(old, old.replace("near=8", "near=16")) == ["...xxxxxxxxx, near=8)", "...xxxxxxxxx, near=16)"]
    assert contrast("a" * 100, "b" + "a" * 99) == ["a" * SHOWN + "...", "b" + "a" * (SHOWN - 1) + "..."]
    assert contrast("a" * 100, "a" * 101)[1].startswith("..." + "a" * 16)
    assert contrast("5", 5) == ['"5"', "5"]
    assert contrast("none", None) == ['"none"', "none"]
    assert contrast("a\nb", "a b") == ['"a\\nb"', '"a b"']


@given(old=json_values, new=json_values, prefix=st.text(max_size=90), suffix=st.text(max_size=90))
def test_different_values_give_different_texts_of_one_short_line(old: Any, new: Any, prefix: str, suffix: str) -> None:
    pairs = [(old, new), ([prefix, old], [prefix, new])]
    if isinstance(old, str) and isinstance(new, str):
        pairs.append((prefix + old + suffix, prefix + new + suffix))
    for before, now in pairs:
        if before != now:
            texts = contrast(before, now)
            assert texts[0] != texts[1]
            assert all(len(text) <= SHOWN + 6 and len(text.splitlines()) <= 1 for text in texts)


@given(before=st.dictionaries(st.text(max_size=3), json_values), now=st.dictionaries(st.text(max_size=3), json_values))
def test_a_difference_is_named_if_and_only_if_there_is_one(before: dict[str, Any], now: dict[str, Any]) -> None:
    same = all(before.get(name) == now.get(name) for name in before | now)
    assert (first_difference(before, now) is None) == same
    assert first_difference(before, now, (before | now).keys()) is None


DAMAGE = [b"not json\n", b"[]\n", b"\n", b"\0\0\0\0\n", b"\xff\xfe\n", b"[" * 10**5 + b"\n", b'{"n": 1}\n', b"{}\r\n"]


@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage[:10]))
def test_damage_is_refused_with_its_line_and_a_remedy(tmp_path: Path, damage: bytes, headed: bool) -> None:
    path = tmp_path / "log.jsonl"
    log = log_at(path, headed)
    write(log, [(1, "a"), (2, "b")])
    lines = path.read_bytes().splitlines(keepends=True)
    content = b"".join([*lines[:-1], damage, lines[-1]])
    path.write_bytes(content)
    reason = "not a record of the test|not valid JSON"
    with pytest.raises(DataError, match=rf"log\.jsonl, line {len(lines)}: ({reason}); remove the file\.$"):
        log.read()
    with pytest.raises(DataError, match=f"line {len(lines)}"):
        write(log, [(3, "c")])
    assert path.read_bytes() == content


def test_a_log_that_lost_its_settings_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(log_at(path), [(1, "a"), (2, "b")])
    with pytest.raises(DataError, match="line 1: not the settings of a run"):
        log_at(path, begins_with_settings=True).read()


def test_a_duplicate_record_is_damage_if_records_have_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(log_at(path), [(1, "a"), (1, "b")])
    assert log_at(path).read().records == [(1, "a"), (1, "b")]
    with pytest.raises(DataError, match="line 2: record 1 appears twice; remove the file"):
        log_at(path, unique=True).read()


def test_a_path_that_is_a_folder_is_a_short_error(tmp_path: Path) -> None:
    for use in (lambda log: log.read(), lambda log: write(log, [(1, "a")])):
        with pytest.raises(DataError, match=r"is not a regular file\. Replace it with one\."):
            use(log_at(tmp_path))


def test_settings_may_be_written_to_a_separate_file(tmp_path: Path) -> None:
    SETTINGS.write(tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text()) == VALUES
    assert first_difference(json.loads((tmp_path / "config.json").read_text()), VALUES) is None
