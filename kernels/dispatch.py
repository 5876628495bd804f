"""Launches of kernels, and code that kernels share: copies of host arrays, and Metal text for reductions.

Each other file of this folder, except `noise.py`, has one kernel. It contains the Metal text as a `Kernel`, a function
that returns the `Launch`, and a reference of the same contract. A public function chooses between kernel and reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Kernel:
    """A Metal kernel in the form of `mx.fast.metal_kernel`: MLX writes the function's signature around `source`.

    row_contiguous: MLX copies inputs that are not row-contiguous. If False, the kernel must use their strides.
    """

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str
    header: str = ""
    row_contiguous: bool = True


@dataclass(frozen=True, eq=False)
class Launch:
    """One call of a kernel. Sizes of the grid and of a threadgroup are in threads; edge threadgroups may be smaller."""

    inputs: Sequence[mx.array | int | float]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    output_shapes: Sequence[tuple[int, ...]]
    output_dtypes: Sequence[mx.Dtype]
    template: Sequence[tuple[str, int | bool | mx.Dtype]] = ()


def on_gpu() -> bool:
    """Return whether kernels run: Metal is available, and the GPU is MLX's default device."""
    return mx.metal.is_available() and mx.default_device() == mx.gpu


def on_any_gpu() -> bool:
    """Return whether MLX's default device is a GPU, whether kernels run there or not."""
    return bool(mx.default_device().type == mx.gpu)


def on_cpu(x: mx.array) -> bool:
    """Return whether operations on `x` are those of MLX's CPU backend in float32, some of which have slow functions."""
    return x.dtype == mx.float32 and mx.default_device().type == mx.cpu


def on_device(values: npt.NDArray[Any] | mx.array) -> mx.array:
    """Return a copy of a NumPy array for MLX, of the same shape and values; an MLX array is returned as it is.

    The copy uses the buffer protocol, because `mx.array(values)` of MLX 0.32 loses an interrupt that arrives during the
    call. Then Ctrl-C would not end a run.
    """
    if isinstance(values, mx.array):
        return values
    # MLX accepts any buffer, but its type hints do not say so.
    buffer: Any = values.data
    return mx.array(buffer)


def on_host(x: mx.array | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a NumPy array of the same values, in float32 for the other kinds of floats. This waits for the device."""
    if isinstance(x, mx.array):
        return np.array(x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x)
    return x


@cache
def compiled(kernel: Kernel) -> Any:
    return mx.fast.metal_kernel(
        name=kernel.name,
        input_names=kernel.input_names,
        output_names=kernel.output_names,
        source=kernel.source,
        header=kernel.header,
        ensure_row_contiguous=kernel.row_contiguous,
    )


def run(kernel: Kernel, launch: Launch) -> list[mx.array]:
    """Launch the kernel. Return its outputs, which are new arrays."""
    outputs: list[mx.array] = compiled(kernel)(**vars(launch))
    return outputs


REDUCTION = """
inline KIND NAME(KIND value, threadgroup KIND* part, uint lane, uint group, uint groups) {
  value = SIMD(value);
  // A thread that still reads the last result must finish before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return SIMD(lane < groups ? part[lane] : IDENTITY);
}
"""


def fill(template: str, pieces: dict[str, str]) -> str:
    """Return a template of Metal text with each name in `pieces`, in order, replaced by its piece."""
    for name, piece in pieces.items():
        template = template.replace(name, piece)
    return template


def reduction(name: str, kind: str, simd: str, identity: str) -> str:
    """Return Metal text of a function `name` that reduces a `kind` over the threadgroup with the function `simd`.

    identity: the neutral value, used for SIMD-groups that do not exist.
    """
    return fill(REDUCTION, {"KIND": kind, "NAME": name, "SIMD": simd, "IDENTITY": identity})
