"""Adaptation of decoders to this machine: its name, the best trade-off on its chip, and results of `d3mlx bench`."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from d3mlx.curve import Curve
from d3mlx.files import json_object, locked, write_text

Favor = Literal["rows", "forwards"]
"""The cost that a decoder keeps low."""

PADDING = 32
"""The padding if nothing was measured."""

MOST_PADDING = 1024
"""The largest valid padding in the file. A larger number means that the file is damaged."""


def device_name() -> str:
    """Return MLX's name of the default device, such as "Apple M4 Max"; on a CPU it ends with " (CPU)"."""
    name = str(mx.device_info().get("device_name", "unknown device"))
    return name if mx.default_device().type == mx.gpu else f"{name} (CPU)"


def favored(device: str) -> Favor:
    """Return the cost that a decoder should keep low on a device: "forwards" on M5 and later chips, else "rows".

    On M5 and later chips, arithmetic is cheap compared to reading weights. device: a result of `device_name`.
    """
    apple = re.fullmatch(r"Apple M(\d+)( \w+)?", device)
    return "forwards" if apple and int(apple[1]) >= 5 else "rows"


def unfused_rows(args: Any) -> tuple[int, ...]:
    """Return the numbers of query rows for which attention takes more than one launch on a Metal GPU.

    MLX has one kernel for at most 8 rows whose queries of all heads of a group are at most 32, and one for 9 or more
    rows. args: the family's ModelArgs.
    """
    shape = args.shape()
    return tuple(range(32 // (shape.heads // shape.kv_heads) + 1, 9))


def shape_key(args: Any) -> str:
    """Return a name for the shape of a model. Models with the same name cost the same, whatever their weights.

    args: the family's ModelArgs.
    """
    shape = args.shape()
    sizes = (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.ff, args.logit_width)
    return f"{args.model_type.lower()}-" + "-".join(map(str, sizes))


def cache_file() -> Path:
    """Return the path of bench.json: in D3MLX_CACHE, or in d3mlx/ of XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("D3MLX_CACHE")
    if own:
        return Path(os.path.expanduser(own)) / "bench.json"  # noqa: PTH111
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "d3mlx" / "bench.json"  # noqa: PTH111


def read_saved() -> dict[str, Any]:
    """Return the saved records as {device: {shape: record}}; empty if the file is missing or cannot be read."""
    return json_object(cache_file()) or {}


def saved_record(args: Any, device: str) -> dict[str, Any]:
    """Return the saved record of a device and a model shape; empty if it is missing or damaged.

    args: the family's ModelArgs. device: a result of `device_name`.
    """
    record: Any = read_saved()
    for key in (device, shape_key(args)):
        record = record.get(key) if isinstance(record, dict) else None
    return record if isinstance(record, dict) else {}


def saved_curve(args: Any, device: str) -> Curve | None:
    """Return the cost curve that `d3mlx bench` measured; None if there is none, or if it is damaged.

    args, device: as for `saved_record`.
    """
    try:
        return Curve(tuple((rows, seconds) for rows, seconds in saved_record(args, device).get("curve", ())))
    except (TypeError, ValueError):
        return None


def best_padding(args: Any, device: str) -> int:
    """Return the best multiple for rounding up row counts on a device: measured by `d3mlx bench`, else 32.

    args, device: as for `saved_record`.
    """
    padding = saved_record(args, device).get("padding")
    if isinstance(padding, int) and not isinstance(padding, bool) and 1 <= padding <= MOST_PADDING:
        return padding
    return PADDING


def save_curve(args: Any, device: str, curve: Curve, precision: str) -> Path:
    """Save a measured curve, replacing an earlier record of the same device and shape. Return the file.

    args, device: as for `saved_record`. precision: that of the measured weights, as information for readers of the
    file. Raises ConfigError.
    """
    return save_record(args, device, {"curve": curve.points, "weights": precision})


def save_padding(args: Any, device: str, padding: int, precision: str) -> Path:
    """Save a measured padding, as `save_curve` saves a curve. Return the file. Raises ConfigError."""
    return save_record(args, device, {"padding": padding, "weights": precision})


def save_record(args: Any, device: str, record: dict[str, Any]) -> Path:
    """Save a record with its date, replacing an earlier one of the same device and shape. Return the file.

    args, device: as for `saved_record`. Raises ConfigError.
    """
    path = cache_file()
    # The lock keeps both results if two measurements end at the same time.
    with locked(path.parent, wait=True):
        saved = read_saved()
        shapes = saved.get(device)
        dated = record | {"date": time.strftime("%Y-%m-%d")}
        saved[device] = (shapes if isinstance(shapes, dict) else {}) | {shape_key(args): dated}
        write_text(path, json.dumps(saved, indent=1, sort_keys=True) + "\n")
    return path
