"""Deterministic arithmetic word problems with worked solutions, in three splits.

A problem depends only on (index, split, seed). The sorted tuple of the numbers in its question belongs to exactly one
split. So no training problem has exactly the numbers of a held-out problem.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from d3mlx.data.templates import ANSWER, CONTAINERS, NAMES, OBJECTS, PIECES, TEMPLATES, Template

Split = Literal["train", "validation", "held-out"]

HIGHEST = 200
"""Largest number of a question or a solution."""

LONGEST = 63
"""Largest number of tokens of a solution. With the end of the turn it fits a canvas of 64."""

SHOT_OPERATIONS = 2
"""Largest number of operations of a worked example, so that five examples, a question and a canvas fit the context."""

OPERATION_SHARES = {1: 0.2, 2: 0.3, 3: 0.3, 4: 0.2}
"""Share of problems by number of operations."""

ANSWER_PATTERN = re.compile(r"[Aa]nswer is (\d+)")


@dataclass(frozen=True)
class Problem:
    """A word problem, or several in one prompt. numbers: of the question. equations: the steps of the solution."""

    question: str
    solution: str
    answer: str
    numbers: tuple[int, ...]
    equations: tuple[str, ...]
    templates: tuple[int, ...]
    """Template index of each question."""

    @property
    def operations(self) -> int:
        """Return the number of operations."""
        return len(self.equations)

    @property
    def length(self) -> int:
        """Return the number of tokens of the solution."""
        return len(re.findall(PIECES, self.solution))


def split_of(numbers: tuple[int, ...]) -> Split:
    """Return the split of problems with these numbers, in any order."""
    bucket = zlib.crc32(repr(sorted(numbers)).encode()) % 100
    if bucket < 8:
        return "held-out"
    return "validation" if bucket < 12 else "train"


def calculate(left: int, sign: str, right: int) -> int | None:
    """Return the result of one step. None if it is not a whole number from 2 to HIGHEST."""
    if sign == "/":
        result, rest = divmod(left, right)
        if rest:
            return None
    else:
        result = left + right if sign == "+" else left - right if sign == "-" else left * right
    return result if 2 <= result <= HIGHEST else None


def solve(template: Template, numbers: dict[str, int]) -> dict[str, int] | None:
    """Return the numbers and the results of all steps as r1, r2, ... None if a step has no valid result."""
    values = dict(numbers)
    for i, step in enumerate(template.steps, 1):
        result = calculate(values[step.left], step.sign, values[step.right])
        if result is None:
            return None
        values[f"r{i}"] = result
    return values


def templates_with(operations: int) -> list[int]:
    """Return the indices of the templates with this number of operations."""
    return [i for i, template in enumerate(TEMPLATES) if len(template.steps) == operations]


BY_OPERATIONS = {operations: templates_with(operations) for operations in OPERATION_SHARES}


def problem(index: int, split: Split = "train", seed: int = 0, most_operations: int = 4) -> Problem:
    """Return the problem at `index` of a split, with at most `most_operations` operations (for a curriculum)."""
    if split not in get_args(Split):
        raise ValueError(f"Unknown split {split!r}. Choose {', '.join(get_args(Split))}.")
    rng = random.Random(f"{seed}/{split}/{index}/{most_operations}")
    counts = [count for count in OPERATION_SHARES if count <= most_operations]
    operations = rng.choices(counts, [OPERATION_SHARES[count] for count in counts])[0]
    number = rng.choice(BY_OPERATIONS[operations])
    template = TEMPLATES[number]
    while True:
        drawn = {name: rng.randint(*bounds) for name, bounds in template.ranges.items()}
        values = solve(template, drawn)
        if values is not None and split_of(tuple(drawn.values())) == split:
            candidate = worded(number, drawn, values, rng)
            if candidate.length <= LONGEST:
                return candidate


def worded(number: int, drawn: dict[str, int], values: dict[str, int], rng: random.Random) -> Problem:
    """Return a problem with random names and objects, and one of three phrasings per step."""
    template = TEMPLATES[number]
    name, other = rng.sample(NAMES, 2)
    words = {"n": name, "m": other, "o": rng.choice(OBJECTS), "p": rng.choice(CONTAINERS)}
    sentences, equations = [], []
    for i, step in enumerate(template.steps, 1):
        equations.append(f"{values[step.left]}{step.sign}{values[step.right]}={values[f'r{i}']}")
        sentences.append(rng.choice(step.phrasings).format(eq=equations[-1], **words))
    answer = str(values[f"r{len(template.steps)}"])
    sentences.append(ANSWER.format(answer=answer))
    return Problem(
        question=template.question.format(**words, **drawn),
        solution=" ".join(sentences),
        answer=answer,
        numbers=tuple(drawn.values()),
        equations=tuple(equations),
        templates=(number,),
    )


def together(problems: Sequence[Problem]) -> Problem:
    """Return several problems as one: all questions, then all solutions in the same order."""
    return Problem(
        question=" ".join(part.question for part in problems),
        solution=" ".join(part.solution for part in problems),
        answer=", ".join(part.answer for part in problems),
        numbers=tuple(number for part in problems for number in part.numbers),
        equations=tuple(equation for part in problems for equation in part.equations),
        templates=tuple(number for part in problems for number in part.templates),
    )


def page(index: int, questions: int, split: Split = "train", seed: int = 0, most_operations: int = 4) -> Problem:
    """Return the `index`-th group of `questions` problems of a split, as one problem."""
    first = index * questions
    return together([problem(i, split, seed, most_operations) for i in range(first, first + questions)])


def answer_of(text: str, questions: int = 1) -> str | None:
    """Return the last `questions` answers of a solution, without leading zeros. None if it has fewer."""
    answers = ANSWER_PATTERN.findall(text)
    if len(answers) < questions:
        return None
    return ", ".join(answer.lstrip("0") or "0" for answer in answers[-questions:])


def is_correct(problem: Problem, text: str) -> bool:
    """Return whether a solution has the correct answers."""
    return answer_of(text, len(problem.templates)) == problem.answer
