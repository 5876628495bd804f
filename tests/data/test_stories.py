"""Tests of the composed stories, their splits and their tokenizer."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from d3mlx.data.records import read_rows
from d3mlx.data.stories import amounts, measures, questions, solutions, wordings
from d3mlx.data.stories.problem import answer_of, is_correct, split_of
from d3mlx.data.stories.questions import STYLES
from d3mlx.data.stories.render import NUMBER_WORDS
from d3mlx.data.stories.scenes import SCENES
from d3mlx.data.stories.stories import LONGEST, page, problem
from d3mlx.data.stories.tokenizer import PATH, build_tokenizer
from d3mlx.data.stories.wordings import Bank
from d3mlx.data.stories.words import CATEGORIES, NAMES, is_held_out, plural
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind

TOKENIZER = build_tokenizer()
SPLITS = ("train", "validation", "held-out")
UNKNOWN: dict[str, Any] = {"split": "held-out", "words": "unknown", "wordings": "unknown"}
VALUES = {word: i for i, word in enumerate(NUMBER_WORDS)} | {"dozen": 12, "twice": 2, "half": 2}


def banks() -> Iterator[Bank]:
    """Yield all banks of facts and questions."""
    for module in (wordings, amounts, measures, questions, solutions):
        for mapping in vars(module).values():
            if isinstance(mapping, dict):
                yield from (bank for bank in mapping.values() if isinstance(bank, Bank))


def numbers_in(text: str) -> set[int]:
    """Return the numbers in a question, as digits or words."""
    return {
        int(word) if word.isdigit() else VALUES[word.lower()]
        for word in re.findall(rf"\d+|\b(?:{'|'.join(VALUES)})\b", text, re.IGNORECASE)
    }


def test_every_equation_is_true_and_the_last_one_is_the_answer() -> None:
    scenes = set()
    for i in range(1500):
        task = problem(i, SPLITS[i % 3]) if i % 5 else problem(i, **UNKNOWN)
        scenes.update(task.scenes)
        assert 1 <= task.operations <= 4
        for equation in task.equations:
            assert equation in task.solution
            left, sign, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", equation).groups()  # type: ignore[union-attr]
            value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}
            assert int(result) == (int(left) // int(right) if sign == "/" else value[sign])
            assert int(left) % int(right) == 0 or sign != "/"
            assert max(map(int, (left, right, result))) <= 200
            assert int(result) >= 2 or sign == "-"
        assert all(not equation.endswith("=0") for equation in task.equations[:-1])
        assert task.equations[-1].endswith(f"={task.answer}")
        assert numbers_in(task.question) - {1} == set(task.numbers) - {1}
        assert is_correct(task, task.solution)
        assert task.solution.endswith(f". The answer is {task.answer}.")
    assert scenes == set(range(len(SCENES)))


def test_operands_are_numbers_of_the_question_or_earlier_results() -> None:
    for i in range(600):
        task = problem(i)
        seen = set(task.numbers)
        for equation in task.equations:
            left, right, result = map(int, re.split(r"[-+*/=]", equation))
            assert {left, right} <= seen | {2}
            seen.add(result)


def test_only_the_last_sentence_names_what_it_counts_and_one_is_singular() -> None:
    puppets = next(
        task for i in range(500) if "puppets" in (task := problem(i, "validation")).question and task.answer == "1"
    )
    assert puppets.solution == "In total 4*4=16. Missing are 17-16=1 puppet. The answer is 1."


def test_no_tuple_of_numbers_is_in_two_splits() -> None:
    for split in SPLITS:
        assert all(split_of(problem(i, split).numbers) == split for i in range(300))
    assert split_of(problem(0, **UNKNOWN).numbers) == "held-out"
    with pytest.raises(ValueError, match="held-out"):
        problem(0, "train", words="unknown")


def test_problems_depend_only_on_their_arguments_and_are_frozen() -> None:
    assert problem(5, "held-out", seed=1) == problem(5, "held-out", seed=1) != problem(5, "held-out", seed=2)
    tasks = [task for i in range(100) for task in (problem(i), problem(i, **UNKNOWN))]
    digest = zlib.crc32("".join(f"{task.question}{task.solution}" for task in tasks).encode())
    assert digest == 572156835


def test_training_texts_have_no_held_out_words_or_wordings() -> None:
    names = {name for name in NAMES if is_held_out(name)}
    things = {thing for category in CATEGORIES.values() for thing in category.things if is_held_out(thing)}
    unknown = {word for bank in banks() for text in bank.unknown for word in re.findall("[a-z]+", text)}
    only_unknown = {"misplace", "donate", "possess", "apiece", "purchase", "smash", "fairly", "discover", "containing"}
    assert only_unknown <= unknown
    texts = [problem(i, SPLITS[i % 2]) for i in range(3000)]
    words = {word for task in texts for word in re.findall("[A-Za-z]+", f"{task.question} {task.solution}")}
    assert not words & (names | things | {plural(thing) for thing in things})
    stems = (*only_unknown, "wonder", "Please", "tell me")
    assert not [word for word in words if word.startswith(stems)]
    assert len(words & set(NAMES)) > 300


def test_held_out_problems_have_only_held_out_words_and_unknown_wordings() -> None:
    names = {name for name in NAMES if not is_held_out(name)}
    things = {thing for category in CATEGORIES.values() for thing in category.things if not is_held_out(thing)}
    for i in range(400):
        words = set(re.findall("[A-Za-z]+", problem(i, **UNKNOWN).question))
        assert not words & names
        assert not words & {plural(thing) for thing in things}


def test_every_bank_has_enough_wordings_and_a_held_out_part() -> None:
    for bank in banks():
        assert len(set(bank.known)) >= 6
        assert len(set(bank.unknown)) >= 2
        assert len(bank.unknown) >= 0.15 * len(set(bank.known + bank.unknown))
        assert not set(bank.known) & set(bank.unknown)
    assert len(STYLES.unknown) >= 2


def test_pages_are_adjacent_problems() -> None:
    both, first, second = page(3, 2, **UNKNOWN), problem(6, **UNKNOWN), problem(7, **UNKNOWN)
    assert both.question == f"{first.question} {second.question}"
    assert is_correct(both, f"{first.solution} {second.solution}")
    assert not is_correct(both, second.solution)
    assert not is_correct(both, f"{second.solution} {first.solution}") or first.answer == second.answer


def test_the_task_judges_all_problems_of_a_prompt() -> None:
    both = page(3, 2, **UNKNOWN)
    embedded = Embedded(TaskOptions(), "llada", Kind(2, words="unknown", wordings="unknown"))
    assert embedded.ask(3).text == both.question
    verdict = embedded.score(3, both.solution)
    assert (verdict.correct, verdict.answer) == (True, both.answer)
    assert not embedded.score(3, both.solution.replace("answer is", "result is", 1)).correct


def test_answers_of_solutions() -> None:
    assert answer_of("The answer is 42.") == "42"
    assert answer_of("The answer is 4. No, the answer is 007.") == "7"
    assert answer_of("It is 42.") is None
    assert answer_of("The answer is 4. The answer is 07. The answer is 12.", 2) == "7, 12"
    assert answer_of("The answer is 4.", 2) is None


def test_own_questions_have_numeric_answers() -> None:
    rows = [row for _, row in read_rows(PATH.with_name("own_questions.jsonl"))]
    assert len(rows) >= 20
    assert rows[0]["question"] == "Tom has 5 apples and eats 2. How many apples are left?"
    assert all(row["answer"].isdigit() for row in rows)


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_the_tokenizer_encodes_and_decodes_any_text(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


def test_solutions_fit_the_canvas_and_digits_are_separate_tokens(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert len(plain) <= 2048
    for i in range(600):
        task = problem(i) if i % 2 else problem(i, **UNKNOWN)
        assert len(plain.encode(task.solution)) <= LONGEST
        assert len(plain.encode(task.question)) <= 144
    pieces = [plain.decode([token]) for token in plain.encode("12+305=317.")]
    assert [piece for piece in pieces if piece.isdigit()] == list("12305317")
    names = [len(plain.encode(f" {name}")) for name in NAMES if is_held_out(name)]
    assert sum(names) / len(names) < 4
