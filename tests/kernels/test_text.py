"""The Metal text of every kernel: reviewed in snapshots, and free of what Apple's compiler would refuse."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.kernels import snapshot
from tests.metal import lint
from tests.metal.requirements import require_clang


def test_snapshots_are_up_to_date() -> None:
    kept = {file.name: file.read_text() for file in snapshot.FOLDER.iterdir()}
    assert kept == snapshot.texts(), "run `python -m tests.kernels.snapshot` and review what changed"


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 8])
def test_text_is_metal(dtype: mx.Dtype, rows: int) -> None:
    """With one row, small inputs come in another address space."""
    require_clang()
    for kernel, launch in snapshot.typical_calls(dtype, rows):
        assert lint.check(snapshot.generated(kernel, launch)) == []
