"""Files of long runs: written whole, in folders that one process at a time writes to, told apart by content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import mlx.core as mx

from d3mlx.errors import ConfigError

READ_WHOLE = 64 << 20
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
SAMPLES, SAMPLE_BYTES = 256, 4096
"""How much of a file goes into its fingerprint: all of it up to READ_WHOLE bytes, else samples."""


def fingerprint(path: Path | str | None) -> str | None:
    """A hash that tells one model folder or data file from another: names, sizes, contents, large ones by samples.

    Of a folder everything counts that an answer depends on: weights, configuration, tokenizer, chat template.
    Sixteen gigabytes of weights take milliseconds, and two trainings of a model differ in every sample.
    """
    if path is None:
        return None
    path = Path(path)
    files = sorted(file for kind in MODEL_FILES for file in path.glob(kind)) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            if size <= max(READ_WHOLE, SAMPLE_BYTES):
                digest.update(content.read())
                continue
            for i in range(SAMPLES):
                content.seek(i * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                digest.update(content.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def holds_files(folder: Path) -> bool:
    """Whether there is anything in a folder but hidden files. Raises ConfigError if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder.")
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def open_locked(folder: Path, flags: int = 0, wait: bool = False) -> int:
    """Make a folder and lock it; the system releases the lock of a killed process. The lock's descriptor.

    flags: for opening it. wait: for whoever has it. Raises BlockingIOError if another process has it, or has replaced
    it since, and OSError if it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        # Whoever had it may have removed the folder that was opened, and a third process made a new one.
        if not (folder.exists() and os.path.samestat(os.fstat(lock), folder.stat())):
            raise BlockingIOError
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder, and let no other run write to it meanwhile.

    Raises ConfigError if another run has it, or if it cannot be made.
    """
    try:
        lock = open_locked(folder, wait=wait)
    except BlockingIOError as error:
        raise ConfigError(f"Another run is writing to {folder}; wait for it, or give another folder.") from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {error.strerror}; give another folder.") from error
    try:
        yield
    finally:
        os.close(lock)


def lock_file(file: IO[bytes], path: Path) -> None:
    """Let no other run write to an open file until it is closed. Raises ConfigError if another run has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"Another run is writing to {path}; wait for it, or give another folder.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into a ConfigError that names it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} cannot be written: {why.rstrip('.')}; make room, or give another folder.") from error


def append(file: IO[bytes], path: Path, line: bytes) -> None:
    """Write a line to the open file of a path, and hand it to the system, so that a kill leaves at most this one torn.

    Raises ConfigError; the file is closed then, for what it could not take it would try to write again.
    """
    try:
        with writing(path):
            file.write(line)
            file.flush()
    except ConfigError:
        with suppress(OSError):
            file.close()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a temporary sibling and rename it. Raises ConfigError."""
    write_bytes(path, text.encode(errors="backslashreplace"))


@contextmanager
def renamed(partial: Path, path: Path) -> Iterator[None]:
    """Rename a temporary sibling that is written meanwhile; of one that fails nothing stays. Raises ConfigError."""
    try:
        with writing(path):
            yield
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a temporary sibling and rename it; a link stays, a device or a pipe is written to. Raises ConfigError."""
    with writing(path):
        special = path.exists() and not path.is_file()
        if special:
            path.write_bytes(content)
        else:
            path = path.resolve()
    if special:
        return
    partial = path.with_name(f".{path.name}.partial")
    with renamed(partial, path):
        partial.write_bytes(content)


def save_arrays(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
    """Write safetensors as a temporary sibling and rename it. Raises ConfigError."""
    partial = path.with_name(f".partial-{path.name}")
    with renamed(partial, path):
        mx.save_safetensors(str(partial), arrays, metadata=metadata)
