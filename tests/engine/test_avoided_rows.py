"""Row counts for which attention on a Metal GPU is not fused are never planned for one request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from d3mlx import Selective, generation
from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.canvas import Canvas
from d3mlx.engine import decode
from d3mlx.generation import decoder_for
from d3mlx.tuning import unfused_rows


def model_of(heads: int, kv_heads: int) -> Any:
    sizes = Sizes("dream", layers=1, hidden=8 * heads, heads=heads, kv_heads=kv_heads, ff=32, vocab=64)
    return random_model(sizes)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "unfused"),
    [(4, 4, []), (8, 2, []), (28, 4, [5, 6, 7, 8]), (16, 2, [5, 6, 7, 8]), (12, 1, [3, 4, 5, 6, 7, 8])],
)
def test_unfused_rows_follow_from_the_heads(heads: int, kv_heads: int, unfused: list[int]) -> None:
    """Dream-7B has 28 heads and 4 heads of keys, LLaDA-8B as many of both."""
    assert list(unfused_rows(model_of(heads, kv_heads).args)) == unfused


@pytest.mark.parametrize("multiple", [1, 3, 4, 8])
def test_a_step_avoids_unfused_rows(multiple: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(14, 2)
    preset = Selective(threshold=2.0, block_size=4, near=0, row_multiple=multiple)

    def rows() -> list[int]:
        canvas = Canvas.for_prompt(np.arange(20).tolist(), 40, 63)
        return [step.rows for step in decode(model, canvas, decoder)][1:]

    decoder = decoder_for(model, preset)
    on_cpu = rows()
    assert {5, 6, 7, 8} & set(on_cpu)
    monkeypatch.setattr(generation, "on_gpu", lambda: True)
    decoder = decoder_for(model, preset)
    assert not {5, 6, 7, 8} & set(rows())
    # A decoder that is complete already, such as an evaluation's, is the same on every machine.
    built = preset.build("dream")
    assert decoder_for(model, built) is built
