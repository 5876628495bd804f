"""The folder that a run writes: whole or absent, whatever happens on the way."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from d3mlx.errors import ConfigError


def refuse_existing(target: Path) -> None:
    """Raise ConfigError if something is there already."""
    if os.path.lexists(target):
        raise ConfigError(f"{target} exists already; give another folder, or remove it first.")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that takes its name when the block ends well, and goes when it does not.

    A killed run leaves at most that folder, and the next run towards the same target removes it. Raises ConfigError if
    the target exists or another run is writing it.
    """
    target = target.expanduser().absolute()
    refuse_existing(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}; give another folder.") from error
    lock = os.open(partial, os.O_RDONLY)
    try:
        # The system releases the lock of a killed process.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"Another run is writing {target}; wait for it, or give another folder.") from None
        # The other run may have finished between the first look and the lock.
        refuse_existing(target)
        try:
            clear(partial)
            yield partial
            refuse_existing(target)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def clear(folder: Path) -> None:
    """Remove what a killed run left in the folder; the folder itself carries the lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            with suppress(FileNotFoundError):
                entry.unlink()


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise ConfigError if the disk that holds `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"The result takes {needed / 1e9:.1f} GB and the disk of {folder.parent} has {free / 1e9:.1f} GB free; "
            "make room, or quantize to fewer bits."
        )
