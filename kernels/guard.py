"""Choice between a kernel and its reference: a kernel that fails on this machine is replaced.

`call` is the only way in which the package runs a kernel. Inside `checking`, the first call of each variant of a kernel
is compared with the reference on the CPU. `d3mlx.warmup` does this before a run, because an error in the middle of a
run would end it: MLX compiles a kernel inside `mx.eval`, and a failed evaluation cannot be repeated.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.errors import ConfigError, D3Warning
from d3mlx.kernels import dispatch
from d3mlx.kernels.dispatch import Kernel, Launch

SWITCH = "D3MLX_KERNELS"
"""Environment variable: "off" runs the reference of every kernel."""

TOLERANCES = {mx.float32: 1e-3, mx.float16: 1e-2, mx.bfloat16: 5e-2}
"""Largest accepted error of a result, relative to 1 or to the result."""

SMALL = 8
"""MLX passes inputs with fewer elements in another address space, so the text of the kernel differs."""

Variant = tuple[object, ...]

failures: dict[str, str] = {}
"""Kernels that do not work in this process, by name, with the message of the first failure."""

verified: set[Variant] = set()
"""Variants that gave the result of their reference. The first item of each is the name of the kernel."""

CHECKING: ContextVar[bool] = ContextVar("checking", default=False)
"""Whether calls are compared with their references."""


def switched_on() -> bool:
    """Return whether kernels may run at all. Raises ConfigError for an unknown value of D3MLX_KERNELS."""
    value = os.environ.get(SWITCH, "on")
    if value not in ("on", "off"):
        raise ConfigError(f"Invalid {SWITCH} {value!r}. Use on or off.")
    return value == "on"


def usable(kernel: Kernel) -> bool:
    """Return whether a kernel runs: there is a Metal GPU, the kernel has not failed, and kernels are switched on."""
    return dispatch.on_gpu() and kernel.name not in failures and switched_on()


Outputs = Sequence[mx.array | npt.NDArray[Any]]


def call(kernel: Kernel, launch: Callable[[], Launch], reference: Callable[[], Outputs]) -> Outputs:
    """Return the outputs of a kernel, or of its reference if the kernel is not usable.

    The outputs of a reference may be NumPy's. Then the call waits for the device.
    """
    if not usable(kernel):
        return reference()
    if not CHECKING.get():
        return dispatch.run(kernel, launch())
    made = launch()
    variant = variant_of(kernel, made)
    return dispatch.run(kernel, made) if variant in verified else checked(kernel, made, variant, reference)


def variant_of(kernel: Kernel, launch: Launch) -> Variant:
    """Return the properties of a call that determine the text that MLX compiles."""
    arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in launch.inputs]
    return kernel.name, *((str(x.dtype), x.ndim > 0, x.size < SMALL) for x in arrays), str(launch.template)


@contextmanager
def checking() -> Iterator[None]:
    """Compare the first call of each variant with its reference, until the end of the block."""
    token = CHECKING.set(True)
    try:
        yield
    finally:
        CHECKING.reset(token)


def checked(kernel: Kernel, launch: Launch, variant: Variant, reference: Callable[[], Outputs]) -> Outputs:
    """Run a kernel and its reference, and return the outputs of the kernel if they are equal, else those of the other.

    The kernel runs on a stream of its own, because a failure makes a stream unusable.
    """
    with mx.stream(mx.cpu):
        expected = [dispatch.on_host(output) for output in reference()]
    try:
        with mx.stream(mx.new_stream(mx.default_device())):
            outputs = dispatch.run(kernel, launch)
            mx.eval(outputs)
    except Exception as error:
        fail(kernel, str(error) or type(error).__name__)
        return reference()
    for name, output, right in zip(kernel.output_names, outputs, expected, strict=True):
        if (difference := first_difference(output, right)) is not None:
            fail(kernel, f"Its output {name} is wrong: {difference}.")
            return reference()
    verified.add(variant)
    return outputs


def first_difference(output: mx.array, right: npt.NDArray[Any]) -> str | None:
    """Return a description of the first element that differs from the reference, or None if all are equal.

    Integers must be equal. Floats may differ by the tolerance of their dtype.
    """
    tolerance = TOLERANCES.get(output.dtype, 0.0)
    got, expected = (dispatch.on_host(x).reshape(-1) for x in (output, right))
    near = np.isclose(got, expected, tolerance, tolerance, equal_nan=True) if tolerance else got == expected
    wrong = np.flatnonzero(~near)
    return f"element {wrong[0]} is {got[wrong[0]]}, not {expected[wrong[0]]}" if len(wrong) else None


def fail(kernel: Kernel, message: str) -> None:
    """Record that a kernel does not work, and warn once."""
    failures[kernel.name] = message
    warnings.warn(
        f"The Metal kernel {kernel.name} does not work on this machine, so its slower reference runs instead. Please "
        f"report this with the output of d3mlx doctor. {message}",
        D3Warning,
        stacklevel=2,
    )
