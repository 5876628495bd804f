"""Output folders that appear only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from d3mlx.errors import ConfigError
from d3mlx.files import open_locked
from d3mlx.signals import undisturbed


def refuse_existing(target: Path) -> None:
    """Raise ConfigError if `target` exists."""
    if os.path.lexists(target):
        raise ConfigError(f"{target} already exists. Choose another folder, or remove it first.")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder next to `target`. It is renamed to `target` after the block, and removed after an error.

    A killed run leaves the hidden folder, and the next run for the same target clears it. Raises ConfigError if
    the target exists or another run is writing it.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow links
    refuse_existing(target)
    partial = target.with_name(f".{target.name}.partial")
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        # Do not follow a link with this name: the folder that it points to would be cleared.
        lock = open_locked(partial, os.O_NOFOLLOW)
    except BlockingIOError as error:
        raise ConfigError(f"Another run is writing {target}. Wait for it, or choose another folder.") from error
    except OSError as error:
        raise ConfigError(f"Cannot write {target}: {error.strerror}. Choose another folder.") from error
    try:
        # Another run may have finished between the first check and the lock.
        refuse_existing(target)
        clear(partial)
        yield partial
        refuse_existing(target)
        partial.rename(target)
    except BaseException:
        with undisturbed():
            shutil.rmtree(partial, ignore_errors=True)
            for parent in new_parents:
                with suppress(OSError):
                    parent.rmdir()
        raise
    finally:
        os.close(lock)


def clear(folder: Path) -> None:
    """Remove the files of a killed run. The folder itself stays, because it has the lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            with suppress(FileNotFoundError):
                entry.unlink()


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise ConfigError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"The result needs {needed / 1e9:.1f} GB, but the disk of {folder.parent} has {free / 1e9:.1f} GB free. "
            "Free some space, or quantize to fewer bits."
        )
