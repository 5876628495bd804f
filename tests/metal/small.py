"""Small kernels with 64 threads, for the emulator's own tests."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from tests.metal import Emulation, emulate
from tests.metal.trace import Generated, trace

THREADS = 64
NAMES = """uint i = thread_position_in_grid.x;
uint l = thread_index_in_threadgroup;
uint lane = thread_index_in_simdgroup;
"""


def kernel(source: str, header: str = "", atomic: bool = False) -> Any:
    return mx.fast.metal_kernel(
        name="small",
        input_names=["x"],
        output_names=["out"],
        source=NAMES + source,
        header=header,
        atomic_outputs=atomic,
    )


def run(
    source: str, emulation: Emulation | None = None, header: str = "", atomic: bool = False, **changes: Any
) -> npt.NDArray[Any]:
    """Run `source` on x = 0 ... 63 and return the output, float32 [64]. changes: other arguments of the call."""
    x = mx.arange(THREADS, dtype=mx.float32)
    call: dict[str, Any] = {"inputs": [x], "grid": (THREADS, 1, 1), "threadgroup": (THREADS, 1, 1)}
    call |= {"output_shapes": [(THREADS,)], "output_dtypes": [mx.float32]} | changes
    return np.array(emulate(kernel(source, header, atomic), emulation)(**call)[0])


def generated(source: str, header: str = "", size: int = 16, dtype: mx.Dtype = mx.float32) -> Generated:
    call = {"grid": (size, 1, 1), "threadgroup": (size, 1, 1), "output_shapes": [(size,)], "output_dtypes": [dtype]}
    return trace(kernel(source, header), [mx.zeros((size,), dtype)], **call)
