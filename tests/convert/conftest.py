"""Checkpoints to convert."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert.folders import WRITERS


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {family: write(folder / family, shards=3) for family, write in WRITERS.items()}
