"""Helpers for tests of the converter: checkpoints to convert, and the contents of folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load_model

from d3mlx.models import get_model_classes
from tests.builders import write_dream, write_llada

WRITERS: dict[str, Callable[..., Path]] = {"llada": write_llada, "dream": write_dream}
IDS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def weights(folder: Path) -> dict[str, mx.array]:
    """Return all tensors in the folder's files."""
    tensors: dict[str, mx.array] = {}
    for file in folder.glob("model*.safetensors"):
        tensors |= dict(mx.load(str(file)).items())  # type: ignore[union-attr]
    return tensors


def same(a: dict[str, mx.array], b: dict[str, mx.array]) -> bool:
    """Return whether names, dtypes and values are equal."""
    alike = a.keys() == b.keys() and all(a[name].dtype == b[name].dtype for name in a)
    return alike and all(bool(mx.array_equal(a[name], b[name])) for name in a)


def read(folder: Path, name: str = "config.json") -> Any:
    """Return the value in a JSON file."""
    return json.loads((folder / name).read_text())


def original(folder: Path) -> Any:
    """Return the model as mlx-lm loads it."""
    model, _ = load_model(folder, get_model_classes=get_model_classes)
    return model
