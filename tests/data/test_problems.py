"""Tests of the generated word problems, their tokenizer and training batches."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from d3mlx.data.problems import answer_of, is_correct, page, problem, split_of
from d3mlx.data.templates import TEMPLATES
from d3mlx.data.tokens import CONTEXT, MASK, build_tokenizer
from d3mlx.evaluate.tasks import TaskOptions, task
from d3mlx.evaluate.tasks.embedded import Embedded
from d3mlx.research.batches import CANVAS, Source
from d3mlx.research.supervised import mask_batch

TOKENIZER = build_tokenizer()
MASK_ID = TOKENIZER.convert_tokens_to_ids(MASK)
SPLITS = ("train", "validation", "held-out")


def test_every_equation_is_true_and_the_last_one_is_the_answer() -> None:
    seen = set()
    for i in range(600):
        task = problem(i, SPLITS[i % 3])
        seen.update(task.templates)
        assert 1 <= task.operations <= 4
        for equation in task.equations:
            assert equation in task.solution
            left, sign, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", equation).groups()  # type: ignore[union-attr]
            value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}
            assert int(result) == (int(left) // int(right) if sign == "/" else value[sign])
            assert int(left) % int(right) == 0 or sign != "/"
            assert max(map(int, (left, right, result))) <= 200
        assert task.equations[-1].endswith(f"={task.answer}")
        assert all(str(number) in task.question for number in task.numbers)
        assert is_correct(task, task.solution)
    assert seen == set(range(len(TEMPLATES)))


def test_there_are_enough_templates_with_three_phrasings_per_step() -> None:
    assert len(TEMPLATES) >= 20
    for template in TEMPLATES:
        assert all(len(set(step.phrasings)) == 3 for step in template.steps)


def test_no_tuple_of_numbers_is_in_two_splits() -> None:
    tuples = {split: {tuple(sorted(problem(i, split).numbers)) for i in range(800)} for split in SPLITS}
    assert not tuples["train"] & tuples["held-out"]
    assert not tuples["train"] & tuples["validation"]
    assert all(split_of(numbers) == split for split in SPLITS for numbers in tuples[split])


def test_a_problem_depends_only_on_index_split_and_seed() -> None:
    assert problem(5, "held-out", seed=1) == problem(5, "held-out", seed=1) != problem(5, "held-out", seed=2)


def test_answers_of_solutions() -> None:
    assert answer_of("The answer is 42.") == "42"
    assert answer_of("The answer is 4. No, the answer is 007.") == "7"
    assert answer_of("It is 42.") is None
    assert answer_of("The answer is 4. The answer is 07. The answer is 12.", 2) == "7, 12"
    assert answer_of("The answer is 4.", 2) is None


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_the_tokenizer_encodes_and_decodes_any_text(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


def test_problems_are_short_and_digits_are_separate_tokens(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    for i in range(300):
        task = problem(i)
        assert len(plain.encode(task.solution)) < CANVAS
        assert len(plain.encode(task.question)) <= 64
    pieces = [plain.decode([token]) for token in plain.encode("12+305=317.")]
    assert [piece for piece in pieces if piece.isdigit()] == list("12305317")


def test_batches_depend_only_on_their_index_and_mask_only_answers() -> None:
    source = Source(TOKENIZER, size=4, seed=3)
    for make in (source.problems, source.continued, source.blocks, source.worked, source.drills, source.recall):
        batch, again = make(7), make(7)
        assert (batch.ids == again.ids).all()
        assert (batch.weights == again.weights).all()
        for ids, weights in zip(batch.ids, batch.weights, strict=True):
            answer = np.flatnonzero(weights == 1)
            prompt_end = int(np.flatnonzero(ids == source.turn[1])[0])
            assert answer.min() > prompt_end
    for ids, weights in zip(source.continued(1).ids, source.continued(1).weights, strict=True):
        first, last = np.flatnonzero(weights == 1)[[0, -1]]
        assert TOKENIZER.decode(ids[:first]).endswith("=")
        assert TOKENIZER.decode(ids[first:last]).isdigit()
        assert (weights[:first] == 0).all()
        assert (weights[last + 1 :] > 0).all()
    blocks = source.blocks(1)
    assert blocks.hidden_from is not None
    hidden = np.array(mask_batch(blocks, MASK_ID, np.random.default_rng(0)).ids) == MASK_ID
    for row, (start, end) in enumerate(zip((blocks.weights == 1).argmax(axis=1), blocks.hidden_from, strict=True)):
        assert hidden[row, end:].all() and not hidden[row, :start].any()
        assert end - start in (8, 16, 32)
    drill = source.drills(0)
    equations = re.findall(r"(\d+)[-+*/]\d+=(\d+)", TOKENIZER.decode(drill.ids[0]))
    assert sum(result == after for (_, result), (after, _) in pairwise(equations)) <= 2
    text = TOKENIZER.decode(drill.ids[0])
    results = re.findall(r"=(\d+)\.", text)
    answers = "".join(TOKENIZER.decode([token]) for token in drill.ids[0][drill.weights[0] == 1])
    assert answers == "".join(results)


def test_worked_examples_have_the_same_form_in_training_and_prompts() -> None:
    source = Source(TOKENIZER, size=4, seed=3)
    embedded = task("embedded", "llada", TaskOptions(shots=2))
    before = [problem(i, "train", most_operations=2) for i in (2, 3)]
    trained = source.conversation(source.examples([*before, problem(1, "held-out")]))
    prompt = embedded.ask(1).prompt(TOKENIZER)
    assert (
        TOKENIZER.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"] == trained.ids[: trained.prompt]
    )
    shown = [TOKENIZER.decode([token for token, on in zip(trained.ids, trained.weights, strict=True) if on])]
    assert shown == ["<|eot_id|>".join([*(p.solution for p in before), problem(1, "held-out").solution, ""])]


def test_pairs_are_adjacent_problems_and_correct_only_together() -> None:
    first, second = problem(6, "held-out"), problem(7, "held-out")
    both = page(3, 2, "held-out")
    assert both.question == f"{first.question} {second.question}"
    assert is_correct(both, f"{first.solution} {second.solution}")
    assert not is_correct(both, second.solution)
    assert not is_correct(both, f"{second.solution} {first.solution}") or first.answer == second.answer
    embedded = Embedded(TaskOptions(shots=1), "llada", questions=2)
    assert embedded.ask(3).text == both.question
    verdict = embedded.score(3, both.solution)
    assert (verdict.correct, verdict.answer) == (True, f"{first.answer}, {second.answer}")


def test_batches_of_pairs_have_room_for_two_answers() -> None:
    source = Source(TOKENIZER, size=4, seed=3, questions=2)
    for make in (source.blocks, source.worked):
        batches = [make(i) for i in range(12)]
        assert max(batch.ids.shape[1] for batch in batches) <= CONTEXT + CANVAS
        for batch in batches:
            if batch.hidden_from is None:
                continue
            last = [int(np.flatnonzero(ids == source.turn[1])[-1]) for ids in batch.ids]
            assert batch.ids.shape[1] - max(last) > 2 * CANVAS
            for ids, start in zip(batch.ids, last, strict=True):
                assert TOKENIZER.decode(ids[start:]).count("answer is") == 2
