"""Arrays of the host for kernels and models."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy.typing as npt


def on_device(values: npt.NDArray[Any] | mx.array) -> mx.array:
    """A copy of a NumPy array for MLX, of the same shape and values; what MLX has is returned as it is.

    Through the buffer protocol: `mx.array(values)` of MLX 0.32 drops an interrupt that arrives in it, so that now and
    then Ctrl-C would not end a run.
    """
    if isinstance(values, mx.array):
        return values
    # MLX takes every buffer; its type hints do not say so.
    buffer: Any = values.data
    return mx.array(buffer)
