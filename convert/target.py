"""The folder that a run writes: whole or absent, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from d3mlx.errors import ConfigError
from d3mlx.files import open_locked


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
    target = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow links
    refuse_existing(target)
    partial = target.with_name(f".{target.name}.partial")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        # Whoever may write here could have put a link in its place, and what it points to would be cleared.
        lock = open_locked(partial, os.O_NOFOLLOW)
    except BlockingIOError as error:
        raise ConfigError(f"Another run is writing {target}; wait for it, or give another folder.") from error
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}; give another folder.") from error
    try:
        # The other run may have finished between the first look and the lock.
        refuse_existing(target)
        clear(partial)
        yield partial
        refuse_existing(target)
        partial.rename(target)
    except BaseException:
        with undisturbed():
            shutil.rmtree(partial, ignore_errors=True)
            for parent in made:
                with suppress(OSError):
                    parent.rmdir()
        raise
    finally:
        os.close(lock)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C meanwhile: a second one would leave half of what the first one cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
