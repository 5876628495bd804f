"""An emulator of Metal on a CPU: it runs the kernels of `mx.fast.metal_kernel` and finds mistakes that a GPU hides.

emulate(kernel)(inputs=..., grid=..., ...)      # the same call as kernel(...)
with emulated() as records: ...                 # the package's functions run their kernels in the emulator
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import mlx.core as mx

from d3mlx import generation
from d3mlx.kernels import dispatch
from tests.metal.compile import CompileError, KernelError
from tests.metal.emulator import Emulation, Record, Traffic, emulate

__all__ = ["CompileError", "Emulation", "KernelError", "Record", "Traffic", "emulate", "emulated"]


@contextmanager
def emulated(emulation: Emulation | None = None) -> Iterator[list[Record]]:
    """Run every kernel of the package in the emulator inside the context. Yield the list of launch records."""
    records: list[Record] = []

    def run(kernel: dispatch.Kernel, launch: dispatch.Launch) -> list[mx.array]:
        return emulate(dispatch.compiled(kernel), emulation, records)(**vars(launch))

    with (
        patch.object(dispatch, "on_gpu", lambda: True),
        patch.object(dispatch, "run", run),
        # The records are those of the run itself. tests/kernels/test_guard.py checks the warm-up.
        patch.object(generation, "warm_up", lambda *_: None),
    ):
        yield records
