"""Tests of the training batches of stories and their order."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np

from d3mlx.data.stories.stories import problem
from d3mlx.data.stories.tokenizer import build_tokenizer
from d3mlx.data.tokens import CONTEXT, MASK
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.holes import Holes
from d3mlx.research.builds.story_curriculum import LAST_SHARES, PHASES, StoryCurriculum
from d3mlx.research.story_batches import QUESTIONS, StorySource
from d3mlx.research.supervised import mask_batch

TOKENIZER = build_tokenizer()
MASK_ID = TOKENIZER.convert_tokens_to_ids(MASK)


def shown(ids: np.ndarray) -> str:
    """Return the text of token ids without end tokens."""
    return TOKENIZER.decode(ids).replace("<|endoftext|>", "")


def test_batches_depend_only_on_their_index_and_mask_only_answers() -> None:
    source, again = StorySource(TOKENIZER, size=4, seed=3), StorySource(TOKENIZER, size=4, seed=3)
    for name in ("problems", "continued", "blocks", "worked", "drills", "recall"):
        batch, other = getattr(source, name)(7), getattr(again, name)(7)
        assert (batch.ids == other.ids).all() and (batch.weights == other.weights).all()
        assert batch.ids.shape[1] <= CONTEXT + QUESTIONS * CANVAS
        for ids, weights in zip(batch.ids, batch.weights, strict=True):
            assert np.flatnonzero(weights == 1).min() > np.flatnonzero(ids == source.turn[1])[0]


def test_problems_are_training_stories() -> None:
    source = StorySource(TOKENIZER, size=4, seed=3)
    tasks = {(task.question, task.solution) for task in (problem(i, "train", 3) for i in range(32))}
    for ids in source.problems(2).ids:
        question, solution = re.findall(r"\n\n([^<]*)<\|eot_id\|>", shown(ids))
        assert (question, solution) in tasks


def test_recall_repeats_the_pairs_of_the_prompt_with_words_of_several_tokens() -> None:
    source = StorySource(TOKENIZER, size=24, seed=0)
    lengths = []
    for ids in source.recall(1).ids:
        prompt, response = re.findall(r"\n\n([^<]*)<\|eot_id\|>", shown(ids))
        words, repeated = prompt.split(), response.split()
        assert Counter(zip(words[::2], words[1::2], strict=True)) == Counter(
            zip(repeated[::2], repeated[1::2], strict=True)
        )
        lengths += [len(TOKENIZER.encode(f" {word}", add_special_tokens=False)) for word in words if word.isalpha()]
    assert np.mean(lengths) > 2.5


def test_blocks_hide_everything_after_the_block() -> None:
    batch = StorySource(TOKENIZER, size=8, seed=0).blocks(1)
    assert batch.hidden_from is not None
    hidden = np.array(mask_batch(batch, MASK_ID, np.random.default_rng(0)).ids) == MASK_ID
    for row, (start, end) in enumerate(zip((batch.weights == 1).argmax(axis=1), batch.hidden_from, strict=True)):
        assert hidden[row, end:].all() and not hidden[row, :start].any()
        assert end - start in (8, 16, 32)


def test_conversations_have_two_to_four_turns() -> None:
    source = StorySource(TOKENIZER, size=8, seed=0)
    turns = {int((ids == source.turn[1]).sum()) for i in range(12) for ids in source.worked(i).ids}
    assert turns == {2, 3, 4}


def test_drills_mask_the_results_of_separate_equations() -> None:
    batch = StorySource(TOKENIZER, size=4, seed=0).drills(0)
    text = shown(batch.ids[0])
    results = re.findall(r"=(\d+)\.", text)
    assert "".join(TOKENIZER.decode([token]) for token in batch.ids[0][batch.weights[0] == 1]) == "".join(results)
    pairs = pairwise(re.findall(r"(\d+)[-+*/]\d+=(\d+)", text))
    assert sum(result == after for (_, result), (after, _) in pairs) <= 2


def test_holes_are_followed_by_visible_text() -> None:
    holes = Holes(StorySource(TOKENIZER, size=16, seed=0))
    for batch in (holes.batch(i) for i in range(4)):
        assert (batch.weights.max(axis=1) > 0).all()
        assert (batch.weights[:, -1] == 0).all()
        assert all("answer is" in shown(ids) for ids in batch.ids[:4]) or batch.lowest_ratio < 1


def test_the_curriculum_starts_with_recall_and_ends_with_every_kind() -> None:
    curriculum = StoryCurriculum(TOKENIZER, size=4)
    assert {curriculum.kind(step) for step in range(0, PHASES[0].until, 50)} == {"recall"}
    assert all(abs(sum(phase.shares.values()) - 1) < 1e-9 for phase in PHASES)
    last = PHASES[-2].until
    counts = Counter(curriculum.kind(step) for step in range(last, last + 2000))
    assert set(counts) == set(LAST_SHARES)
    assert all(abs(counts[kind] / 2000 - share) < 0.04 for kind, share in LAST_SHARES.items())
    page_steps = [step for step in range(last, last + 100) if curriculum.kind(step) == "pages"]
    batch = curriculum.batch(page_steps[0])
    assert batch.ids.shape[0] == 2
    assert shown(batch.ids[0]).count("answer is") == QUESTIONS
