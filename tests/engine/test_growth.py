"""A canvas that grows: which positions are active, and that the cache handles new positions exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.canvas import Canvas
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.selective import Selective
from d3mlx.engine import decode
from tests.fakes import END, MASK, TableModel, random_table
from tests.golden.cases import model as golden_model

PROMPT = [1, 2, 3]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    new=st.integers(1, 50),
    size=st.integers(1, 9),
    ahead=st.integers(0, 3),
    family=st.sampled_from(["llada", "dream"]),
    full=st.booleans(),
    early_stop=st.booleans(),
)
def test_positions_near_the_active_blocks_are_active(
    seed: int, new: int, size: int, ahead: int, family: str, full: bool, early_stop: bool
) -> None:
    """Before each forward, the active part of the canvas ends `ahead` blocks after the active blocks.

    New positions are computed immediately. The active part never exceeds the limit and does not grow after an end
    token.
    """
    model = TableModel(random_table(seed, 3 + new), family)
    canvas = Canvas.for_prompt(PROMPT, new, MASK, (END,), early_stop)
    decoder = Selective(threshold=0.7, block_size=size, row_multiple=4, ahead=ahead).build(family)
    decoder = replace(decoder, cache=NoCache()) if full else decoder
    before = end = 0
    for step in decode(model, canvas, decoder):
        rows, last = model.calls[-1], step.blocks[-1].end
        if end:
            # An end token was committed before this forward, so the active part does not grow.
            assert canvas.active_length == before
        else:
            assert canvas.active_length == min(last + ahead * size, 3 + new)
        assert set(range(before, canvas.active_length)) <= set(rows) <= set(range(canvas.active_length))
        before = canvas.active_length
        end = early_stop and END in canvas.tokens[:before]
    assert canvas.done


Trace = list[tuple[list[int], list[int]]]


def trace(model: Any, decoder: Decoder) -> tuple[Trace, list[int]]:
    """Return the positions and tokens that each step commits, and the number of rows of each step."""
    canvas = Canvas.for_prompt([3, 14, 15, 92, 65], 60, mask_id=250)
    steps = list(decode(model, canvas, decoder))
    return [(step.positions.tolist(), step.tokens.tolist()) for step in steps], [step.rows for step in steps]


def growing(family: str, ahead: int | None) -> Decoder:
    return Selective(threshold=1.5, block_size=8, row_multiple=1, ahead=ahead).build(family)


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("full", [False, True], ids=["needed", "full"])
def test_ahead_for_all_blocks_changes_nothing(family: str, full: bool) -> None:
    def run(ahead: int | None) -> tuple[Trace, list[int]]:
        decoder = growing(family, ahead)
        return trace(golden_model(family), replace(decoder, cache=NoCache()) if full else decoder)

    assert run(7) == run(None)
    assert run(0)[0] != run(None)[0]


@pytest.mark.parametrize("size", [8, 30])
def test_a_long_limit_shows_256_masks_at_first(size: int) -> None:
    canvas = Canvas.for_prompt([3, 14, 15], 700, mask_id=250)
    first = next(decode(golden_model("llada"), canvas, Selective(block_size=size).build("llada")))
    assert first.rows == 3 + size * (1 + -(-256 // size))


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_the_cache_handles_new_positions_exactly(family: str, ahead: int) -> None:
    """With a single layer, keys and values depend only on their own token, so the selective cache is exact."""
    model = golden_model.__wrapped__(family)
    model.model.layers = model.model.layers[:1]
    needed = growing(family, ahead)
    (commits, rows), (expected, all_rows) = trace(model, needed), trace(model, replace(needed, cache=NoCache()))
    assert commits == expected
    assert len(commits) < 60
    assert sum(rows) < 0.7 * sum(all_rows)
