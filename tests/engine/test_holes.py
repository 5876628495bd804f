"""Given tokens are marked by a flag and not by their id. Holes may be anywhere between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.engine import decode
from d3mlx.errors import PromptError
from tests.fakes import END, MASK, VOCAB, TableModel, random_table

PRESETS: list[Any] = [
    Vanilla(block_size=4),
    Vanilla(block_size=8, cfg_scale=0.5),
    FastDLLM(cache="none", threshold=0.4, block_size=5),
    FastDLLM(cache="prefix", threshold=0.4, block_size=4),
    FastDLLM(cache="dual", threshold=0.4, block_size=3),
    D3LLM(cache="none", threshold=1.0, block_size=4),
    D3LLM(threshold=0.8, block_size=3, cache_delay=1, refresh_interval=3),
    Selective(threshold=0.8, block_size=4, rows=8),
    Selective(threshold=0.8, block_size=3, rows=12, first_masks=0),
]
DREAM: list[Any] = [
    Vanilla(),
    Vanilla(alg="origin", steps=6),
    FastDLLM(cache="none", threshold=0.6, steps=5),
    FastDLLM(cache="dual", threshold=0.4, block_size=3),
    D3LLM(threshold=0.9, block_size=3, cache_delay=1),
    Selective(threshold=0.9, block_size=3, rows=8, first_masks=0),
]
CASES = [("llada", preset) for preset in PRESETS] + [("dream", preset) for preset in DREAM]


@pytest.mark.parametrize(("family", "preset"), CASES, ids=lambda value: str(value)[:60])
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    flags=st.lists(st.sampled_from([True, True, False]), min_size=1, max_size=40),
    early_stop=st.booleans(),
)
def test_every_hole_is_decoded_and_given_tokens_do_not_change(
    family: str, preset: Any, seed: int, flags: list[bool], early_stop: bool
) -> None:
    """The given tokens include mask and end ids, with holes before, between and after them."""
    rng = np.random.default_rng(seed)
    given_flags = np.repeat(flags, rng.integers(1, 6, len(flags)))
    if given_flags.all():
        given_flags[-1] = False
    length = len(given_flags)
    tokens = rng.integers(0, VOCAB, length)
    canvas = Canvas(tokens, given_flags, MASK, (END,), early_stop)
    model = TableModel(random_table(seed, length), family)
    given_positions = np.flatnonzero(given_flags)
    commits = 0
    for step in decode(model, canvas, preset.build(family)):
        assert set(step.positions) <= set(step.eligible)
        assert not given_flags[step.eligible].any()
        assert canvas.active_length > given_positions.max(initial=-1)
        commits += len(step.positions)
        assert step.stats.forwards <= 10 * length + 10
    assert canvas.done
    assert (canvas.tokens[given_flags] == tokens[given_flags]).all()
    assert MASK not in canvas.tokens[~given_flags]
    for start, end in runs(~given_flags):
        part = canvas.tokens[start:end]
        ends = np.flatnonzero(part == END)
        if early_stop and len(ends):
            assert (part[ends[0] :] == END).all()
    # The first forward computes every given token, including those after a hole.
    assert set(given_positions) <= set(model.calls[0])
    assert commits <= (~given_flags).sum()
    assert step.stats.tokens == len(canvas.answer) == canvas.answered


def runs(flags: Any) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def test_an_end_token_fills_only_its_own_hole() -> None:
    table = np.zeros((12, VOCAB))
    wanted = [1, END, 5, 6, 1, 1, 7, 8, END, 9, 1, 3]
    table[np.arange(12), wanted] = 9.0
    flags = np.isin(np.arange(12), [0, 4, 5, 10])
    canvas = Canvas(wanted, flags, MASK, (END,))
    (step,) = decode(TableModel(table), canvas, D3LLM(cache="none", block_size=12).build("llada"))
    assert canvas.tokens.tolist() == [1, END, END, END, 1, 1, 7, 8, END, END, 1, 3]
    assert step.filled.tolist() == [2, 3, 9]
    assert canvas.answer_positions.tolist() == [1, 6, 7, 8, 11]
    assert step.stats.tokens == 5


@pytest.mark.parametrize("preset", [Selective(rows=16), D3LLM(), D3LLM(cache="none"), FastDLLM(), Vanilla()])
def test_a_hole_after_finished_blocks_is_decoded(preset: Any) -> None:
    """At least three blocks between the holes have no mask."""
    tokens = np.ones(200, np.int32)
    flags = np.ones(200, bool)
    flags[[8, 9, 180, 181]] = False
    table = np.zeros((200, VOCAB))
    table[:, 3] = 9.0
    canvas = Canvas(tokens, flags, MASK, (END,))
    steps = list(decode(TableModel(table), canvas, preset.build("llada")))
    assert canvas.tokens[[8, 9, 180, 181]].tolist() == [3] * 4
    assert len(steps) <= 4


@pytest.mark.parametrize(
    ("family", "preset"),
    [("llada", Vanilla(steps=4)), ("llada", Vanilla(steps=4, block_size=200)), ("dream", Vanilla(steps=4))],
)
def test_steps_are_divided_among_the_masks(family: str, preset: Any) -> None:
    """Given tokens of a block get no steps. The canvas has 16 masks in two holes and 200 positions."""
    flags = np.ones(200, bool)
    flags[10:18] = flags[150:158] = False
    canvas = Canvas(np.ones(200, np.int32), flags, MASK, (END,))
    table = np.zeros((200, VOCAB))
    table[:, 3] = 9.0
    assert len(list(decode(TableModel(table, family), canvas, preset.build(family)))) == 4


def test_a_prompt_may_contain_the_mask_token() -> None:
    table = np.zeros((7, VOCAB))
    table[:, 3] = 9.0
    canvas = Canvas.for_prompt([1, MASK, 2], 4, MASK)
    (step,) = decode(TableModel(table), canvas, D3LLM().build("llada"))
    assert step.eligible.tolist() == [3, 4, 5, 6]
    assert canvas.tokens.tolist() == [1, MASK, 2, 3, 3, 3, 3]


def test_a_canvas_without_a_hole_is_refused() -> None:
    with pytest.raises(PromptError, match="no position to decode"):
        Canvas([1, MASK], [True, True], MASK)
    with pytest.raises(PromptError, match="2 flags"):
        Canvas([1, 2, 3], [True, False], MASK)
