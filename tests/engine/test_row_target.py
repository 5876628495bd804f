"""The rows of the selective cache: how many a forward computes, which ones, and that the cache handles them exactly."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.selective_cache import FEW
from d3mlx.engine import decode, follow
from d3mlx.request import Request
from tests.fakes import END, MASK, TableModel, random_table
from tests.golden.cases import model as golden_model

PROMPT = [1, 2, 3]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    new=st.integers(1, 60),
    target=st.integers(8, 20),
    size=st.integers(1, 9),
    recent=st.integers(1, 3),
    near=st.integers(0, 3),
    masks=st.integers(0, 20) | st.none(),
    family=st.sampled_from(["llada", "dream"]),
    early_stop=st.booleans(),
)
def test_a_forward_computes_the_rows_that_it_needs_and_fills_the_target(
    seed: int,
    new: int,
    target: int,
    size: int,
    recent: int,
    near: int,
    masks: int | None,
    family: str,
    early_stop: bool,
) -> None:
    model = TableModel(random_table(seed, 3 + new), family)
    canvas = Canvas.for_prompt(PROMPT, new, MASK, (END,), early_stop)
    decoder = Selective(None, size, recent=recent, near=near, rows=target, first_masks=masks).build(family)
    commits: list[set[int]] = []
    tokens, masked, filled, cached = {0, 1, 2}, set(range(3, 3 + new)), set[int](), 0
    for step in decode(model, canvas, decoder):
        rows, eligible = set(model.calls[-1]), step.eligible.tolist()
        grown = max(cached, max(rows) + 1)
        # No row attends to a position that was never computed.
        assert set(range(cached, grown)) <= rows
        active = sorted(p for p in masked if p < step.blocks[-1].end)
        assert eligible == active[: len(eligible)]
        assert rows >= {*eligible, *(p - model.shift for p in eligible)}
        if step.index == 0:
            assert rows == set(range(grown))
            assert len(rows) % target == 0 or max(rows) == 2 + new
            wanted = min(max(new // 2, 16), 256) if masks is None else masks
            assert len(masked & rows) >= min(wanted, new)
        else:
            fresh = set[int]().union(*commits[-recent:]) & (tokens - filled)
            beside = {p for p in tokens - filled if any(abs(p - q) <= near for q in fresh)}
            needed = fresh | beside | {*eligible, *(p - model.shift for p in eligible)}
            if len(needed) <= target and len(eligible) == len(active):
                assert needed <= rows
            few = len(needed) <= FEW and len(eligible) == len(active)
            assert len(rows) == min(FEW if few else target, max(cached, max(masked) + 1))
        cached = grown
        commits.append(set(step.positions.tolist()))
        tokens = {p for p in range(3 + new) if not canvas.masked[p]}
        masked, filled = set(range(3 + new)) - tokens, {p for p in tokens if canvas.filled[p]}
    assert canvas.done


Trace = list[tuple[list[int], list[int]]]


def trace(model: Any, decoder: Decoder, new: int = 60) -> tuple[Trace, list[int]]:
    """Return the positions and tokens that each step commits, and the number of rows of each step."""
    canvas = Canvas.for_prompt([3, 14, 15, 92, 65], new, mask_id=250)
    steps = list(decode(model, canvas, decoder))
    return [(step.positions.tolist(), step.tokens.tolist()) for step in steps], [step.rows for step in steps]


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), new=st.integers(1, 40), family=st.sampled_from(["llada", "dream"]))
def test_a_target_as_large_as_the_canvas_is_exact(seed: int, new: int, family: str) -> None:
    table = random_table(seed, 3 + new)
    whole = Selective(threshold=0.7, block_size=6, block_add=0.1, rows=64, near=64).build(family)
    exact = D3LLM(cache="none", threshold=0.7, block_size=6).build(family)
    runs = []
    for decoder in (whole, exact):
        canvas = Canvas.for_prompt(PROMPT, new, MASK, (END,))
        steps = list(decode(TableModel(table, family), canvas, decoder))
        runs.append([(step.positions.tolist(), step.tokens.tolist(), step.rows) for step in steps])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("masks", [0, 60])
def test_the_cache_is_exact_for_a_single_layer(family: str, masks: int) -> None:
    """Then keys and values depend only on their own token, so they are never stale.

    The masks are far from their ends, so that the canvas grows for as long as it can.
    """
    model = golden_model.__wrapped__(family)
    model.model.layers = model.model.layers[:1]
    decoder = Selective(threshold=1.5, block_size=8, rows=16, first_masks=masks).build(family)
    canvas = Canvas.for_prompt([3, 14, 15, 92, 65], 60, mask_id=250)
    request = Request(model, canvas, decoder)
    total = rows = 0
    for step in follow(model, request):
        seen = canvas.tokens[: request.rows.length].copy()
        seen[step.positions] = 250
        hidden = model.hidden(mx.array(seen)[None])
        logits = np.array(model.logits(hidden[0, mx.array(step.eligible - model.shift)]))
        logits[:, 250] = -np.inf
        assert logits.argmax(axis=1).tolist() == step.guesses.tolist()
        total, rows = total + len(seen), rows + step.rows
    assert rows < 0.7 * total


@pytest.mark.parametrize(("new", "masks"), [(300, 150), (8, 8), (24, 16), (2000, 256)])
def test_the_first_forward_computes_half_of_the_answer(new: int, masks: int) -> None:
    canvas = Canvas.for_prompt([3, 14, 15], new, mask_id=250)
    first = next(decode(golden_model("llada"), canvas, Selective().build("llada")))
    assert first.rows == min(-(-(3 + masks) // 32) * 32, 3 + new)


def test_a_step_has_32_rows_or_4() -> None:
    model, fast = golden_model("llada"), Selective(threshold=1.5)
    assert set(trace(model, fast.build("llada"), new=200)[1]) == {128, 32}
    one_by_one = Selective(threshold=0.0, block_size=2, block_add=1.0, near=1)
    assert set(trace(model, one_by_one.build("llada"), new=200)[1]) == {128, 32, FEW}
