"""Arrays of the host for kernels and models."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy.typing as npt


def on_device(values: npt.NDArray[Any] | mx.array) -> mx.array:
    """A copy of a NumPy array for MLX, of the same shape and dtype; what MLX has is returned as it is.

    Through the buffer protocol: `mx.array(values)` of MLX 0.32 drops an interrupt that arrives in it, so that now and
    then Ctrl-C would not end a run.
    """
    return values if isinstance(values, mx.array) else mx.array(values.data)
