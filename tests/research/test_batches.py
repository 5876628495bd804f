"""Tests of the training batches and their order."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np

from d3mlx.data.stories.stories import problem
from d3mlx.data.stories.tokenizer import CONTEXT, MASK, build_tokenizer
from d3mlx.evaluate.tasks import TaskOptions, task
from d3mlx.research.batches import CANVAS, QUESTIONS, Source
from d3mlx.research.builds.curriculum import LAST_SHARES, PHASES, Curriculum
from d3mlx.research.hole_batches import Holes
from d3mlx.research.supervised import mask_batch

TOKENIZER = build_tokenizer()
MASK_ID = TOKENIZER.convert_tokens_to_ids(MASK)


def shown(ids: np.ndarray) -> str:
    """Return the text of token ids without end tokens."""
    return TOKENIZER.decode(ids).replace("<|endoftext|>", "")


def test_batches_depend_only_on_their_index_and_mask_only_answers() -> None:
    source, again = Source(TOKENIZER, size=4, seed=3), Source(TOKENIZER, size=4, seed=3)
    for name in ("problems", "continued", "blocks", "worked", "drills", "recall"):
        batch, other = getattr(source, name)(7), getattr(again, name)(7)
        assert (batch.ids == other.ids).all() and (batch.weights == other.weights).all()
        assert batch.ids.shape[1] <= CONTEXT
        for ids, weights in zip(batch.ids, batch.weights, strict=True):
            assert np.flatnonzero(weights == 1).min() > np.flatnonzero(ids == source.turn[1])[0]


def test_continued_solutions_end_with_an_equal_sign_and_their_result_is_next() -> None:
    batch = Source(TOKENIZER, size=4, seed=3).continued(1)
    for ids, weights in zip(batch.ids, batch.weights, strict=True):
        first, last = np.flatnonzero(weights == 1)[[0, -1]]
        assert TOKENIZER.decode(ids[:first]).endswith("=")
        assert TOKENIZER.decode(ids[first:last]).isdigit()
        assert (weights[:first] == 0).all() and (weights[last + 1 :] > 0).all()


def test_worked_examples_have_the_same_form_in_training_and_prompts() -> None:
    source = Source(TOKENIZER, size=4, seed=3)
    embedded = task("embedded", "llada", TaskOptions(shots=2))
    before, last = [problem(i, "train", most_operations=2) for i in (2, 3)], problem(1, "held-out")
    trained = source.conversation(source.examples([*before, last]))
    prompt = embedded.ask(1).prompt(TOKENIZER)
    encoded = TOKENIZER.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    assert encoded == trained.ids[: trained.prompt]
    answers = TOKENIZER.decode([token for token, on in zip(trained.ids, trained.weights, strict=True) if on])
    assert answers == "<|eot_id|>".join([*(p.solution for p in before), last.solution, ""])


def test_batches_of_two_problems_have_room_for_two_answers() -> None:
    source = Source(TOKENIZER, size=4, seed=3, questions=2)
    for i in range(12):
        batch = source.blocks(i)
        last = [int(np.flatnonzero(ids == source.turn[1])[-1]) for ids in batch.ids]
        assert batch.ids.shape[1] <= CONTEXT and batch.ids.shape[1] - max(last) > 2 * CANVAS
        for ids, start in zip(batch.ids, last, strict=True):
            assert TOKENIZER.decode(ids[start:]).count("answer is") == 2


def test_problems_are_training_stories() -> None:
    source = Source(TOKENIZER, size=4, seed=3)
    tasks = {(task.question, task.solution) for task in (problem(i, "train", 3) for i in range(32))}
    for ids in source.problems(2).ids:
        question, solution = re.findall(r"\n\n([^<]*)<\|eot_id\|>", shown(ids))
        assert (question, solution) in tasks


def test_recall_repeats_the_pairs_of_the_prompt_with_words_of_several_tokens() -> None:
    source = Source(TOKENIZER, size=24, seed=0)
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
    batch = Source(TOKENIZER, size=8, seed=0).blocks(1)
    assert batch.hidden_from is not None
    hidden = np.array(mask_batch(batch, MASK_ID, np.random.default_rng(0)).ids) == MASK_ID
    for row, (start, end) in enumerate(zip((batch.weights == 1).argmax(axis=1), batch.hidden_from, strict=True)):
        assert hidden[row, end:].all() and not hidden[row, :start].any()
        assert end - start in (8, 16, 32)


def test_conversations_have_two_to_four_turns() -> None:
    source = Source(TOKENIZER, size=8, seed=0)
    turns = {int((ids == source.turn[1]).sum()) for i in range(12) for ids in source.worked(i).ids}
    assert turns == {2, 3, 4}


def test_drills_mask_the_results_of_separate_equations_and_hide_their_lengths() -> None:
    batch = Source(TOKENIZER, size=4, seed=0).drills(0)
    text = shown(batch.ids[0])
    results = re.findall(r"=(\d+\.)", text)
    assert "".join(TOKENIZER.decode([token]) for token in batch.ids[0][batch.weights[0] == 1]) == "".join(results)
    lengths = {
        len(ends) // len("<|endoftext|>")
        for ends in re.findall(r"\.((?:<\|end.*?>)*) \d", TOKENIZER.decode(batch.ids[0]))
    }
    assert lengths == {0, 1, 2, 3}
    pairs = pairwise(re.findall(r"(\d+)[-+*/]\d+=(\d+)\.", text))
    assert sum(result == after for (_, result), (after, _) in pairs) <= 2


def test_holes_are_followed_by_visible_text() -> None:
    holes = Holes(Source(TOKENIZER, size=16, seed=0))
    for batch in (holes.batch(i) for i in range(4)):
        assert (batch.weights.max(axis=1) > 0).all()
        assert (batch.weights[:, -1] == 0).all()
        assert all("answer is" in shown(ids) for ids in batch.ids[:4]) or batch.lowest_ratio < 1


def test_the_curriculum_starts_with_recall_and_ends_with_every_kind() -> None:
    curriculum = Curriculum(TOKENIZER, size=4)
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
