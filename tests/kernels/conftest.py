"""Fixtures that run the kernels under test in the emulator, and on a Mac also on its GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from d3mlx.kernels import dispatch
from tests.metal import Emulation, emulated
from tests.metal.requirements import require_compiler

Executor = Callable[[Emulation], AbstractContextManager[Any]]
"""A context manager, called with an emulation, inside which the public functions run kernels."""


@pytest.fixture
def emulator() -> Executor:
    require_compiler()
    return emulated


@pytest.fixture(params=["emulator", "gpu"])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "emulator":
        require_compiler()
        return emulated
    if not dispatch.on_gpu():
        pytest.skip("No Metal GPU")
    return lambda emulation: nullcontext()
