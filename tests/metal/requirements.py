"""Requirements of the emulator, and what happens if they are missing.

The tests are skipped with the reason, and `make test` says so before it starts. If CI is set, the tests fail instead.

    python -m tests.metal.requirements
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.metal import compile as compilation
from tests.metal import lint


def require(available: bool, what: str) -> None:
    """Skip the current test if `what` is missing, or fail it in continuous integration."""
    if available:
        return
    if os.environ.get("CI"):
        pytest.fail(f"Metal kernels are not tested: {what} is missing", pytrace=False)
    pytest.skip(f"Metal kernels are not tested: {what} is missing")


def require_compiler() -> None:
    require(compilation.compiler() is not None, compilation.NEEDED)


def require_clang() -> None:
    require(lint.available(), lint.NEEDED)


if __name__ == "__main__":
    if compilation.compiler() is None:
        sys.stderr.write(f"The tests of Metal kernels will be skipped: install {compilation.NEEDED}.\n")
