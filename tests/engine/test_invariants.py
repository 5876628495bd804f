"""Properties of every decoder for any logits, checked on tables of random logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.engine import decode, follow
from d3mlx.request import Request, Step
from tests.fakes import END, MASK, TableModel, random_table

LLADA: list[Any] = [
    Vanilla(block_size=8),
    Vanilla(block_size=5, steps=11, alg="random"),
    Vanilla(block_size=8, cfg_scale=0.5),
    FastDLLM(cache="none", threshold=0.5, block_size=8),
    FastDLLM(cache="prefix", factor=1.5, block_size=7),
    FastDLLM(cache="dual", threshold=0.3, block_size=5),
    D3LLM(cache="none", threshold=1.0, block_size=6),
    D3LLM(threshold=0.8, block_size=5, cache_delay=1, refresh_interval=3),
    D3LLM(threshold=1.5, block_size=8, block_add=0.0, activation=0.0, cache_delay=0),
    Selective(threshold=1.0, block_size=6, rows=12),
    Selective(threshold=0.8, block_size=8, recent=1, rows=8, refresh_interval=3),
    Selective(threshold=0.8, block_size=4, rows=8, first_masks=4),
]
DREAM: list[Any] = [
    Vanilla(),
    Vanilla(alg="topk_margin", steps=7),
    Vanilla(alg="maskgit_plus", steps=9, alg_temp=0.5),
    Vanilla(alg="origin", steps=6),
    FastDLLM(cache="none", threshold=0.6, steps=5),
    FastDLLM(cache="prefix", threshold=0.4, block_size=6),
    FastDLLM(cache="dual", threshold=0.4, block_size=7),
    D3LLM(cache="none", threshold=1.0, block_size=6, block_add=1.0, activation=1.0),
    D3LLM(threshold=0.9, block_size=5, cache_delay=2, refresh_interval=4),
    Selective(threshold=0.9, block_size=5, rows=16),
    Selective(threshold=0.9, block_size=5, rows=8, first_masks=0),
]
DECODERS = [("llada", p) for p in LLADA] + [("dream", p) for p in DREAM]
MAY_PAUSE = (Vanilla,)
"""Presets whose quota follows the noise schedule, so a step may commit nothing."""


@pytest.mark.parametrize(("family", "preset"), DECODERS, ids=lambda value: str(value)[:60])
@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    prompt=st.lists(st.sampled_from([1, END, MASK]), min_size=1, max_size=9),
    new=st.integers(1, 30),
    early_stop=st.booleans(),
    temperature=st.sampled_from([0.0, 0.8]),
)
def test_invariants(
    family: str, preset: Any, seed: int, prompt: list[int], new: int, early_stop: bool, temperature: float
) -> None:
    first = len(prompt)
    model = TableModel(random_table(seed, first + new), family)
    canvas = Canvas.for_prompt(prompt, new, MASK, (END,), early_stop)
    decoder: Decoder = preset.build(family)
    request = Request(model, canvas, decoder, Sampling(temperature, seed=seed))
    lanes = 2 if decoder.cfg_scale else 1
    # The prompt may contain any id, so -1 marks a position without a token.
    tokens = np.array([*prompt, *[-1] * new])
    steps: list[Step] = []
    for step in follow(model, request):
        check_step(step, tokens, first, preset)
        tokens[step.positions] = step.tokens
        tokens[step.filled] = END
        assert (canvas.tokens == np.where(tokens == -1, MASK, tokens)).all()
        assert (canvas.masked == (tokens == -1)).all()
        check_lanes(request, step, model.calls[-1], first)
        steps.append(step)
        assert len(steps) <= 10 * new + 10
    assert canvas.done
    assert MASK not in tokens[first:]
    assert canvas.tokens[:first].tolist() == prompt
    ends = np.flatnonzero(tokens[first:] == END)
    if early_stop and len(ends):
        assert (tokens[first + ends[0] :] == END).all()
        assert canvas.filled[first + ends[0] + 1 :].all()
    else:
        assert not canvas.filled.any()
    stats = steps[-1].stats
    assert stats.tokens == (ends[0] + 1 if len(ends) else new)
    assert stats.forwards == len(model.calls) == len(steps)
    assert stats.rows == sum(len(call) for call in model.calls) == sum(step.rows for step in steps)
    assert stats.prefill_rows == first * lanes


def check_lanes(request: Request, step: Step, call: list[int], first: int) -> None:
    """Check that every lane computed the same rows and got the same tokens. Only the first lane sees the prompt."""
    lanes = 2 if request.decoder.cfg_scale else 1
    assert len(request.lanes) == lanes
    rows = len(call) // lanes
    assert call == call[:rows] * lanes
    assert step.rows == rows * lanes
    for lane in request.lanes[1:]:
        assert (lane.canvas.tokens[:first] == MASK).all()
        for name in ("tokens", "masked", "filled"):
            assert (getattr(lane.canvas, name)[first:] == getattr(request.canvas, name)[first:]).all()


def check_step(step: Step, tokens: Any, first: int, preset: Any) -> None:
    committed, filled = set(step.positions.tolist()), set(step.filled.tolist())
    assert committed or isinstance(preset, MAY_PAUSE)
    assert committed <= set(step.eligible.tolist()) == set(step.eligible[tokens[step.eligible] == -1].tolist())
    assert step.blocks[0].start == first
    assert min(step.eligible) >= first
    # Only a position after an end token of this step may change a committed token.
    changed = [p for p in filled if tokens[p] not in (-1, END)]
    first_end = min([p for p, t in zip(step.positions, step.tokens, strict=True) if t == END], default=None)
    assert all(first_end is not None and p > first_end for p in changed)
    assert MASK not in step.tokens
    assert [block.masks for block in step.blocks] == [(tokens[b.start : b.end] == -1).sum() for b in step.blocks]


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), new=st.integers(1, 40), size=st.integers(1, 12))
def test_multi_block_with_thresholds_of_one_is_sequential(seed: int, new: int, size: int) -> None:
    """In this limit of d3LLM, a block opens only after the block before it is complete."""
    table = random_table(seed, 3 + new)
    wide = D3LLM(cache="none", block_size=size, block_add=1.0, activation=1.0).build("llada")
    narrow = replace(wide, schedule=FastDLLM(cache="none", block_size=size).build("llada").schedule)
    runs = []
    for decoder in (wide, narrow):
        canvas = Canvas.for_prompt([1, 2, 3], new, MASK, (END,))
        runs.append([step.positions.tolist() for step in decode(TableModel(table), canvas, decoder)])
    assert runs[0] == runs[1]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    delay=st.integers(0, 4),
    interval=st.integers(1, 5),
    family=st.sampled_from(["llada", "dream"]),
)
def test_the_cache_does_not_change_the_answer_of_a_context_free_model(
    seed: int, delay: int, interval: int, family: str
) -> None:
    """A model whose logits ignore the context gives the same answer with any cache, shifted or not."""
    table = random_table(seed, 45)
    full = D3LLM(cache="none", block_size=7).build(family)
    delayed = D3LLM(block_size=7, cache_delay=delay, refresh_interval=interval).build(family)
    traces = []
    for decoder in (full, delayed):
        canvas = Canvas.for_prompt([1] * 5, 40, MASK, (END,))
        steps = decode(TableModel(table, family), canvas, decoder)
        traces.append([(step.positions.tolist(), step.tokens.tolist()) for step in steps])
    assert traces[0] == traces[1]
