"""Kernels with a planted defect, made by substitution in their text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from d3mlx.kernels.dispatch import Kernel
from tests.metal import CompileError


def mutant(kernel: Kernel, old: str, new: str) -> Kernel:
    """Return `kernel` with every `old` in its header and source replaced by `new`."""
    assert old in kernel.header + kernel.source, f"the kernel no longer contains {old!r}"
    return replace(kernel, header=kernel.header.replace(old, new), source=kernel.source.replace(old, new))


def assert_caught(check: Callable[[], None]) -> None:
    """Assert that `check` fails with a wrong result or an error of the emulator, but not because of invalid Metal."""
    with pytest.raises(AssertionError) as caught:
        check()
    assert not isinstance(caught.value, CompileError)
