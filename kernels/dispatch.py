"""Where kernels run, how they are launched, and what they share: arrays of the host, and Metal text for reductions.

Each file beside this one holds one kernel: its Metal text as a `Kernel`, a function that lays out its `Launch`, a
reference of the same contract in MLX operations, and the one public function that chooses between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx
import numpy.typing as npt


@dataclass(frozen=True)
class Kernel:
    """A Metal kernel as `mx.fast.metal_kernel` takes it: MLX writes the function's signature around `source`.

    row_contiguous: MLX copies inputs that are not laid out row after row; without it the kernel reads their strides.
    """

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str
    header: str = ""
    row_contiguous: bool = True


@dataclass(frozen=True, eq=False)
class Launch:
    """One call of a kernel. Grid and threadgroup are in threads; edge threadgroups may be smaller."""

    inputs: Sequence[mx.array | int | float]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    output_shapes: Sequence[tuple[int, ...]]
    output_dtypes: Sequence[mx.Dtype]
    template: Sequence[tuple[str, int | bool | mx.Dtype]] = ()


def on_gpu() -> bool:
    """Whether kernels run: Metal is there, and MLX computes on the GPU by default."""
    return mx.metal.is_available() and mx.default_device() == mx.gpu


def on_device(values: npt.NDArray[Any] | mx.array) -> mx.array:
    """Return a copy of a NumPy array for MLX, of the same shape and values; an MLX array is returned as it is.

    Through the buffer protocol: `mx.array(values)` of MLX 0.32 drops an interrupt that arrives in it, so that now and
    then Ctrl-C would not end a run.
    """
    if isinstance(values, mx.array):
        return values
    # MLX takes every buffer; its type hints do not say so.
    buffer: Any = values.data
    return mx.array(buffer)


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
    """Launch the kernel and return its outputs, which are new arrays."""
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
    """Return Metal text made from a template: each name in `pieces`, in their order, replaced by its piece."""
    for name, piece in pieces.items():
        template = template.replace(name, piece)
    return template


def reduction(name: str, kind: str, simd: str, identity: str) -> str:
    """Return Metal text of a function `name` that reduces a `kind` over the threadgroup with the function `simd`.

    identity: the value of a SIMD-group that does not exist.
    """
    return fill(REDUCTION, {"KIND": kind, "NAME": name, "SIMD": simd, "IDENTITY": identity})
