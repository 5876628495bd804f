"""Files of long runs: fingerprints, locks of one writer, files that are written completely or not at all."""

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
"""The part of a file that its fingerprint covers: everything up to READ_WHOLE bytes, else samples."""


def fingerprint(path: Path | str | None) -> str | None:
    """Return a hash of a model folder or data file: names, sizes and contents, large contents by samples.

    Of a folder it covers all that an answer depends on: weights, configuration, tokenizer, chat template. It takes
    milliseconds for 16 GB of weights, and two trainings of a model differ in every sample.
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
    """Return whether a folder has any file that is not hidden. Raises ConfigError if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder.")
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def json_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def open_locked(folder: Path, flags: int = 0, wait: bool = False) -> int:
    """Make a folder and lock it. Return the descriptor of the lock; the system releases that of a killed process.

    flags: for opening the folder. wait: until no other process has the lock. Raises BlockingIOError if another process
    has it, or has replaced the folder since, and OSError if the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        # The process that had the lock may have removed the folder, and a third process may have made a new folder.
        if not (folder.exists() and os.path.samestat(os.fstat(lock), folder.stat())):
            raise BlockingIOError
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder, and let no other run write to it meanwhile.

    Raises ConfigError if another run writes to it, or if it cannot be made.
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
    """Let no other run write to the open file of a path until it is closed.

    Raises ConfigError if another run has the lock, or has removed or replaced the file since it was opened.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        raise ConfigError(f"Another run is writing to {path}; wait for it, or give another folder.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system while `path` is written into a ConfigError that names the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} cannot be written: {why.rstrip('.')}; make room, or give another folder.") from error


def append(file: IO[bytes], path: Path, line: bytes) -> None:
    """Write a line to the open file of a path, and hand it to the system, so that a kill tears at most this line.

    Raises ConfigError. The file is closed then, because it would try to write the rest again.
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
    """Rename a temporary sibling that is written meanwhile. A failure leaves no file. Raises ConfigError."""
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
