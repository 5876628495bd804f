"""Tokens that may still change: what streams out never changes, and every consumer sees drafts and edits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from d3mlx import Generation, LLaDA2, batch_generate, generate, load, stream_generate
from d3mlx.cells import Cells
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.schedule import WholeCanvas
from d3mlx.drafts import Editing
from d3mlx.errors import ConfigError
from tests.replicas import llada2

EDITING = LLaDA2(threshold=0.02, editing_threshold=0.01, block_size=8)
"""Random weights are never confident, so low thresholds make many edits."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(llada2(tmp_path_factory.mktemp("models") / "LLaDA2.1-mini"))


PROMPTS = ["hello", "What is 2+2?", "x", "Größe"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_text_that_streams_out_never_changes(loaded: Any, prompt: str) -> None:
    pieces, committed, edits = "", dict[int, int](), 0
    generation = Generation(*loaded, prompt, EDITING, max_tokens=30)
    for step in generation:
        new = dict(zip(step.positions.tolist(), step.tokens.tolist(), strict=True))
        assert not committed.keys() & new.keys()
        committed |= new
        pieces += step.text
        assert generation.canvas.answered == step.stats.tokens == sum(p in committed for p in answer(generation))
        edits += sum(before != generation.canvas.mask_id for before in step.written.before.tolist())
    assert edits > 0
    assert pieces == generation.text
    assert generation.canvas.tokens[answer(generation)].tolist() == [committed[p] for p in answer(generation)]
    assert "".join(step.text for step in stream_generate(*loaded, prompt, EDITING, max_tokens=30)) == pieces


def answer(generation: Generation) -> list[int]:
    return generation.canvas.answer_positions.tolist()


def test_a_block_commits_at_once_after_its_last_edit(loaded: Any) -> None:
    for step in Generation(*loaded, "hello", EDITING, max_tokens=30):
        if len(step.positions):
            assert step.positions.tolist() == step.eligible.tolist()
        assert set(step.written.positions.tolist()) <= set(step.eligible.tolist())
        assert not (step.written.before == step.written.after).any()


def test_a_limit_of_passes_ends_a_block(loaded: Any) -> None:
    """With no pass after the last mask, a block commits in the step that fills it."""
    forwards = []
    for passes in (0, 1, 3):
        preset = LLaDA2(threshold=0.02, editing_threshold=0.01, block_size=8, max_post_steps=passes)
        steps = list(Generation(*loaded, "hello", preset, max_tokens=24))
        forwards.append(len(steps))
        since = 0
        for step in steps:
            since = 0 if len(step.positions) else since + (not (step.written.before == 260).any())
            assert since <= passes
    assert forwards == sorted(forwards)
    assert forwards[0] < forwards[-1]


def test_requests_that_edit_share_forwards_with_others(loaded: Any) -> None:
    alone = [generate(*loaded, prompt, EDITING, max_tokens=20).tokens for prompt in PROMPTS]
    assert [result.tokens for result in batch_generate(*loaded, PROMPTS, EDITING, max_tokens=20)] == alone


def test_the_live_view_shows_drafts(loaded: Any) -> None:
    generation = Generation(*loaded, "hello", EDITING, max_tokens=20)
    cells, shown = Cells(generation, loaded[1]), set[tuple[int, int]]()
    for step in generation:
        cells.take(step)
        for position, token in zip(step.written.positions.tolist(), step.written.after.tolist(), strict=True):
            cell = cells.cells[position]
            assert cell is not None
            assert (cell.token, cell.step) == (token, step.index)
            shown.add((position, token))
    assert len(shown) > len(generation.canvas.answer)
    for position in answer(generation):
        cell = cells.cells[position]
        assert cell is not None
        assert cell.token == generation.canvas.tokens[position]


def test_impossible_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"max-post-steps limits editing\. Give editing-threshold too"):
        LLaDA2(max_post_steps=3).build("llada2_moe")
    built = EDITING.build("llada2_moe")
    with pytest.raises(ConfigError, match="edited only in blocks with the block cache"):
        Decoder(WholeCanvas(), built.acceptance, NoCache(), editing=Editing(0.5, 3))
    assert np.isclose(built.editing.threshold, 0.01)  # type: ignore[union-attr]
