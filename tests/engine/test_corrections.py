"""Peculiarities of the reference code that this runtime corrects, with the correct behavior of each."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.cache import CachedLayer, KVCache, RowIndex
from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.engine import decode
from d3mlx.errors import CheckpointError
from tests.fakes import END, MASK, VOCAB, TableModel
from tests.golden.cases import Case, cases, multi_block
from tests.golden.cases import model as golden_model


def table_of(tokens: list[int], logit: float = 9.0) -> Any:
    table = np.zeros((len(tokens), VOCAB))
    table[np.arange(len(tokens)), tokens] = logit
    return table


def test_masks_after_an_end_token_are_filled_before_they_can_commit() -> None:
    """Step 0 commits an end token at position 3. Eligible positions after it become end tokens and do not change."""
    table = table_of([1, 5, 6, END, 7, 8, 9, 7])
    table[4:6] *= 0.2
    canvas = Canvas.for_prompt([1], 7, MASK, (END,))
    decoder = D3LLM(cache="none", threshold=0.5, block_size=7).build("llada")
    steps = list(decode(TableModel(table), canvas, decoder))
    assert len(steps) == 1
    assert 3 in steps[0].positions
    assert steps[0].filled.tolist() == [4, 5, 6, 7]
    assert canvas.tokens[1:].tolist() == [5, 6, END, END, END, END, END]
    assert steps[0].stats.tokens == 3


def test_an_end_token_at_a_lower_position_shortens_the_answer_again() -> None:
    table = table_of([1, 5, END, 6, 7, END, 8])
    table[2] *= 0.2
    canvas = Canvas.for_prompt([1], 6, MASK, (END,))
    steps = list(decode(TableModel(table), canvas, D3LLM(cache="none", threshold=0.5, block_size=6).build("llada")))
    assert [step.filled.tolist() for step in steps] == [[6], [3, 4]]
    assert canvas.answer.tolist() == [5, END]


@pytest.mark.parametrize("rows", ["prefix", "dual"])
def test_a_block_finished_by_its_full_pass_needs_no_second_forward(rows: Any) -> None:
    canvas = Canvas.for_prompt([1], 8, MASK)
    decoder = FastDLLM(cache=rows, threshold=0.5, block_size=4).build("llada")
    steps = list(decode(TableModel(table_of([1] * 9)), canvas, decoder))
    assert [(step.kind, len(step.positions)) for step in steps] == [("first", 4), ("first", 4)]


def test_dream_reads_the_first_position_of_a_cached_slice_from_the_row_before_it() -> None:
    """After the prompt is cached, slices start at position 4, and row 3 predicts this position."""
    tokens = [1, 1, 1, 1, 7, 8, 9, 10, 11, 12]
    table = table_of(tokens)
    table[4] *= 0.1
    model = TableModel(table, "dream")
    canvas = Canvas.for_prompt([1] * 4, 6, MASK, (END,))
    steps = list(decode(model, canvas, D3LLM(threshold=0.3, block_size=6, cache_delay=0).build("dream")))
    assert model.calls[1][0] == 4
    assert steps[1].positions.tolist() == [4]
    assert canvas.tokens[4:].tolist() == tokens[4:]


def test_dream_never_caches_a_position_twice() -> None:
    """The reference's cache grew beyond the sequence. This runtime has one slot per position."""
    case = next(c for c in cases("dream/multi_block_kv_cache") if "dup" in c.tags)
    lengths = key_lengths(case)
    assert set(lengths) == {len(case.data["prompt"]) + case.new_tokens}


def key_lengths(case: Case) -> list[int]:
    model, seen = golden_model("dream"), []
    decoder = multi_block("dream", case.params, cached=True)
    canvas = Canvas.for_prompt(case.data["prompt"], case.new_tokens, 250)
    original = KVCache.open

    def watch(cache: KVCache, rows: RowIndex, tokens: Any) -> Any:
        layers = original(cache, rows, tokens)
        seen.extend(layer.arrays[0].shape[3] for layer in layers if isinstance(layer, CachedLayer) and layer.arrays)
        return layers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KVCache, "open", watch)
        for _ in decode(model, canvas, decoder):
            pass
    return seen


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(
    "preset", [Vanilla(), FastDLLM(block_size=16), D3LLM(block_size=16), D3LLM(block_size=16, cache="none")]
)
def test_a_tail_shorter_than_a_block_is_decoded(family: str, preset: Any) -> None:
    canvas = Canvas.for_prompt([1, 2], 40, MASK)
    steps = list(decode(TableModel(table_of([3] * 42, 2.0), family), canvas, preset.build(family)))
    assert canvas.done
    assert len(steps) <= 42


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("preset", [Vanilla(), FastDLLM(), D3LLM()])
def test_the_mask_token_is_never_predicted(family: str, preset: Any) -> None:
    table = table_of([MASK] * 12) + table_of([3] * 12, 1.0)
    canvas = Canvas.for_prompt([1, 2], 10, MASK)
    list(decode(TableModel(table, family), canvas, preset.build(family)))
    assert canvas.tokens[2:].tolist() == [3] * 10


def test_the_mask_stays_in_the_softmax() -> None:
    """Excluding an id changes which token is chosen, but not the entropy."""
    table = np.zeros((2, VOCAB))
    canvas = Canvas.for_prompt([1], 1, MASK)
    (step,) = decode(TableModel(table), canvas, D3LLM().build("llada"))
    assert step.entropies[0] == pytest.approx(np.log(VOCAB), abs=1e-5)


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(
    "preset", [Vanilla(), FastDLLM(cache="none"), FastDLLM(cache="dual"), D3LLM(), D3LLM(cache="none"), Selective()]
)
def test_a_mask_token_in_the_prompt_is_a_token_like_any_other(family: str, preset: Any) -> None:
    prompt = [1, MASK, 2, MASK]
    canvas = Canvas.for_prompt(prompt, 4, MASK)
    assert canvas.masked.tolist() == [False] * 4 + [True] * 4
    for step in decode(TableModel(table_of([5] * 8), family), canvas, preset.build(family)):
        assert min(step.eligible) >= 4
        assert step.blocks[0].start == 4
    assert canvas.tokens.tolist() == [*prompt, 5, 5, 5, 5]
    assert canvas.answer.tolist() == [5] * 4
    assert canvas.answered == step.stats.tokens == 4
    assert step.stats.prefill_rows == 4


def test_logits_that_are_not_numbers_stop_the_run() -> None:
    canvas = Canvas.for_prompt([1], 4, MASK)
    with pytest.raises(CheckpointError, match="NaN"):
        list(decode(TableModel(np.full((5, VOCAB), np.nan)), canvas, D3LLM().build("llada")))


def test_scattered_rows_are_written_at_their_positions() -> None:
    cache = KVCache(1)
    everything = RowIndex(np.arange(6, dtype=np.int32), 6)
    (layer,) = cache.open(everything, np.arange(6, dtype=np.int32))
    assert isinstance(layer, CachedLayer)
    base = mx.zeros((1, 1, 6, 2))
    layer.attend(base, mx.stack([base, base]), 1.0)
    cache.write_hidden(everything, mx.zeros((1, 6, 2)))
    some = RowIndex(np.array([1, 4], dtype=np.int32), 6)
    cache.open(some, np.array([7, 8], np.int32))
    fresh = mx.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    layer.attend(fresh, mx.stack([fresh, 2 * fresh]), 1.0)
    hidden = cache.write_hidden(some, fresh[0])
    keys, values = layer.arrays[0]
    for array in (keys[0, 0], values[0, 0] / 2, hidden[0]):
        assert np.array(array).tolist() == [[0, 0], [1, 2], [0, 0], [0, 0], [3, 4], [0, 0]]
    assert cache.tokens.tolist() == [0, 7, 2, 3, 8, 5]
    assert cache.written.tolist() == [0, 1, 0, 0, 1, 0]


def test_a_mask_token_in_the_list_of_end_tokens_ends_nothing() -> None:
    canvas = Canvas.for_prompt([1], 4, MASK, (END, MASK))
    assert canvas.end_ids == (END,)
    assert len(list(decode(TableModel(np.zeros((5, VOCAB))), canvas, Vanilla().build("llada")))) == 4
