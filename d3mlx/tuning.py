"""How a decoder adapts to this machine: its name, what saves time on its chip, what `d3mlx bench` measured."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from d3mlx.files import json_object, locked, write_text

Favor = Literal["rows", "forwards"]
"""What a decoder saves."""

PADDING = 32
"""The padding where nothing was measured."""

MOST_PADDING = 1024
"""A larger one in the file is damage."""


def device_name() -> str:
    """Return MLX's name of the device that computes, such as "Apple M4 Max"; a processor is told apart from its GPU."""
    name = str(mx.device_info().get("device_name", "unknown device"))
    return name if mx.default_device().type == mx.gpu else f"{name} (CPU)"


def favored(device: str) -> Favor:
    """Return what a decoder should save on a device, a result of `device_name`.

    Forwards where arithmetic is cheap compared to reading weights, as on M5 and later chips, else rows.
    """
    apple = re.fullmatch(r"Apple M(\d+)( \w+)?", device)
    return "forwards" if apple and int(apple[1]) >= 5 else "rows"


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
        return Path(os.path.expanduser(own)) / "bench.json"  # noqa: PTH111
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "d3mlx" / "bench.json"  # noqa: PTH111


def read_saved() -> dict[str, Any]:
    """Device to shape to record; empty if there is no file or none that can be read."""
    return json_object(cache_file()) or {}


def best_padding(args: Any, device: str) -> int:
    """The multiple that row counts of a model are best rounded up to on a device: measured by `d3mlx bench`, else 32.

    args: the family's ModelArgs. device: a result of `device_name`.
    """
    record: Any = read_saved()
    for key in (device, shape_key(args), "padding"):
        record = record.get(key) if isinstance(record, dict) else None
    sane = isinstance(record, int) and not isinstance(record, bool) and 1 <= record <= MOST_PADDING
    return record if sane else PADDING


def save_padding(args: Any, device: str, padding: int, precision: str) -> Path:
    """Keep a measured padding, in place of an earlier one of the same device and shape; return the file.

    precision: of the measured weights, for people who read the file. Raises ConfigError.
    """
    path = cache_file()
    # Two measurements that end together keep both results.
    with locked(path.parent, wait=True):
        saved = read_saved()
        shapes = saved.get(device)
        record = {"padding": padding, "weights": precision, "date": time.strftime("%Y-%m-%d")}
        saved[device] = (shapes if isinstance(shapes, dict) else {}) | {shape_key(args): record}
        write_text(path, json.dumps(saved, indent=1, sort_keys=True) + "\n")
    return path
