from __future__ import annotations

import pytest

from tests.metal.requirements import require_compiler


@pytest.fixture(autouse=True)
def compiler() -> None:
    require_compiler()
