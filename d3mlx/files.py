"""Files of long runs: fingerprints, locks for a single writer, and atomic writes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import mlx.core as mx

from d3mlx.errors import ConfigError, D3Error

READ_WHOLE = 64 << 20
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
SAMPLES, SAMPLE_BYTES = 256, 4096
"""The part of a file that its fingerprint covers: all of it up to READ_WHOLE bytes, else SAMPLES parts of it."""


def fingerprint(path: Path | str | None) -> str | None:
    """Return a hash of a model folder or data file, made from names, sizes, and contents or samples of large contents.

    For a folder it covers everything that an answer depends on: weights, configuration, tokenizer, chat template. It
    takes milliseconds for 16 GB of weights. Samples suffice because two trainings of a model differ in every sample.
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


def refuse_special(paths: Iterable[Path], error: type[D3Error]) -> None:
    """Raise `error` if a path is a pipe, a device, a folder or a broken link. Reading a pipe would wait without end."""
    for path in paths:
        if path.is_file():
            continue
        if path.exists():
            raise error(f"{path} is not a regular file. Replace it with one.")
        if path.is_symlink():
            raise error(f"{path} is a link to a file that does not exist. Restore that file, or remove the link.")


def holds_files(folder: Path) -> bool:
    """Return whether a folder has any file that is not hidden. Raises ConfigError if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Give a folder.")
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def json_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if it is missing or damaged, or not a regular file."""
    try:
        if not path.is_file():
            return None
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def open_locked(folder: Path, flags: int = 0, wait: bool = False) -> int:
    """Make a folder and lock it. Return the file descriptor of the lock; the system releases that of a killed process.

    flags: added for opening the folder. wait: wait until no other process has the lock. Raises BlockingIOError if
    another process has the lock or has replaced the folder, and OSError if the folder cannot be made.
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
    """Make the folder, and lock it against other runs inside the context.

    Raises ConfigError if another run writes to it, or if it cannot be made.
    """
    try:
        lock = open_locked(folder, wait=wait)
    except BlockingIOError as error:
        raise ConfigError(f"Another run is writing to {folder}. Wait for it, or give another folder.") from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {error.strerror}. Give another folder.") from error
    try:
        yield
    finally:
        os.close(lock)


def lock_file(file: IO[bytes], path: Path) -> None:
    """Lock an open file against other runs until it is closed. path: of the file.

    Raises ConfigError if another run has the lock, or has removed or replaced the file since it was opened.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        raise ConfigError(f"Another run is writing to {path}. Wait for it, or give another folder.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a system error during the write of `path` into a ConfigError that names the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        wrong_name = getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
        advice = "Give another name." if wrong_name else "Make room, or give another folder."
        raise ConfigError(f"{path} cannot be written: {why.rstrip('.')}. {advice}") from error


def append(file: IO[bytes], path: Path, line: bytes) -> None:
    """Write a line to an open file and flush it, so that a kill damages at most this line. path: of the file.

    Raises ConfigError. Before that the file is closed, because a later flush would write the rest of the line.
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
    """Write text to a temporary sibling and rename it to `path`. Raises ConfigError."""
    write_bytes(path, text.encode(errors="backslashreplace"))


@contextmanager
def renamed(partial: Path, path: Path) -> Iterator[None]:
    """Rename `partial`, written inside the context, to `path`. A failure leaves no file. Raises ConfigError."""
    try:
        with writing(path):
            yield
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a temporary sibling and rename it to `path`. Raises ConfigError.

    The target of a symbolic link is replaced, not the link. An existing file keeps its permissions. A device or a pipe
    is written to directly.
    """
    with writing(path):
        special = path.exists() and not path.is_file()
        if special:
            path.write_bytes(content)
        else:
            path = path.resolve()
    if special:
        return
    partial = partial_of(path)
    with renamed(partial, path):
        # A private file stays private while it is written.
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:  # noqa: PTH123
            file.write(content)
        if path.exists():
            shutil.copymode(path, partial)


def partial_of(path: Path) -> Path:
    """Return the temporary sibling of a file. Its name is not too long if that of the file is as long as possible."""
    return path.with_name(f".{path.name[:60]}.partial")


def check_writable(path: Path) -> None:
    """Raise ConfigError if a file cannot be written, for example because its folder is missing or read-only."""
    with writing(path):
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is not a regular file. Give another name.")
        target = path.resolve()
        if target.exists() and not os.access(target, os.W_OK):
            raise ConfigError(f"{path} is read-only. Change its permissions, or give another name.")
        partial = partial_of(target)
        try:
            partial.write_bytes(b"")
        finally:
            with suppress(OSError):
                partial.unlink()


def save_arrays(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
    """Write safetensors to a temporary sibling and rename it to `path`. Raises ConfigError."""
    partial = path.with_name(f".partial-{path.name}")
    with renamed(partial, path):
        mx.save_safetensors(str(partial), arrays, metadata=metadata)
