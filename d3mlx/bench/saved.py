"""What measurements leave behind: the best padding of each device and model shape, in a small file of the user's."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PADDING = 32
"""The padding where nothing was measured."""

MOST_PADDING = 1024
"""A larger one in the file is damage."""


def shape_key(args: Any) -> str:
    """A name for the shape of a model: models of one key cost the same, whatever their weights.

    args: the family's ModelArgs.
    """
    shape = args.shape()
    sizes = (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.ff, args.logit_width)
    return f"{args.model_type.lower()}-" + "-".join(map(str, sizes))


def cache_file() -> Path:
    """bench.json in D3MLX_CACHE, or in d3mlx/ of XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("D3MLX_CACHE")
    if own:
        return Path(own).expanduser() / "bench.json"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "d3mlx" / "bench.json"


def read_saved() -> dict[str, Any]:
    """Device to shape to record; empty if there is no file or none that can be read."""
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


def best_padding(args: Any, device: str) -> int:
    """The multiple that row counts of a model are best rounded up to on a device: measured by `d3mlx bench`, else 32.

    args: the family's ModelArgs. device: `machine.device_name()`.
    """
    record: Any = read_saved()
    for key in (device, shape_key(args), "padding"):
        record = record.get(key) if isinstance(record, dict) else None
    sane = isinstance(record, int) and not isinstance(record, bool) and 1 <= record <= MOST_PADDING
    return record if sane else PADDING


def save_padding(args: Any, device: str, padding: int, precision: str) -> Path:
    """Keep a measured padding, in place of an earlier one of the same device and shape; return the file.

    precision: of the measured weights, for people who read the file. Raises OSError.
    """
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        saved = read_saved()
        shapes = saved.get(device)
        record = {"padding": padding, "weights": precision, "date": time.strftime("%Y-%m-%d")}
        saved[device] = (shapes if isinstance(shapes, dict) else {}) | {shape_key(args): record}
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(json.dumps(saved, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Two measurements that end together keep both results. The system releases the lock of a killed process."""
    lock = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
