"""Helpers for small training runs: data, settings and results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from d3mlx.distill.config import DistillConfig, build_config
from d3mlx.distill.trainer import Report

COMMAND = Path(sys.executable).with_name
WORDS = ("one", "two", "three", "four", "five", "six")
SMALL = {
    "rank": 4,
    "batch_size": 2,
    "grad_accumulation_steps": 2,
    "max_length": 96,
    "learning_rate": 1e-2,
    "save_every": 2,
    "log_every": 1,
}


class Quiet:
    """A watcher that stores the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, first: int, steps: int) -> None:
        pass

    def step(self, report: Report) -> None:
        self.losses.append(report.loss)


def quiet(*_: Any) -> Quiet:
    """Return a watcher that shows nothing."""
    return Quiet()


def config_for(model: Path, data: Path, out: Path, **changes: Any) -> DistillConfig:
    """Return the configuration of a small run. Data without trajectories gets random masks, unless `changes` differ."""
    masks = {"random_masks": True} if data.is_file() and "objective" not in changes else {}
    small = SMALL if changes.get("fine_tune_type") != "full" else {k: v for k, v in SMALL.items() if k != "rank"}
    paths = {"model": str(model), "data": str(data), "adapter_path": str(out)}
    return build_config({}, {**paths, **small, **masks, **changes})


def arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a file."""
    loaded: Any = mx.load(str(path))
    return {name: np.array(value) for name, value in loaded.items()}
