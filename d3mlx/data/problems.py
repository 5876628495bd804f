"""Deterministic arithmetic word problems with worked solutions, in three splits that share no number tuple.

A problem is a pure function of (index, split, seed). The numbers of its question, as a sorted tuple, belong to exactly
one split, so no training problem has exactly the numbers of a held-out one.
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
"""No number of a question or a solution is larger."""

LONGEST = 63
"""Tokens of the longest solution; with the end of the turn it fits a canvas of 64."""

SHOT_OPERATIONS = 2
"""Worked examples before a question are short, so that five of them, a question and a canvas fit the context."""

OPERATION_SHARES = {1: 0.2, 2: 0.3, 3: 0.3, 4: 0.2}
ANSWER_PATTERN = re.compile(r"[Aa]nswer is (\d+)")


@dataclass(frozen=True)
class Problem:
    question: str
    solution: str
    answer: str
    numbers: tuple[int, ...]
    equations: tuple[str, ...]
    templates: tuple[int, ...]
    """The number of each question's template."""

    @property
    def operations(self) -> int:
        return len(self.equations)

    @property
    def length(self) -> int:
        """Tokens of the solution."""
        return len(re.findall(PIECES, self.solution))


def split_of(numbers: tuple[int, ...]) -> Split:
    """The one split that problems with these numbers, in any order, may appear in."""
    bucket = zlib.crc32(repr(sorted(numbers)).encode()) % 100
    if bucket < 8:
        return "held-out"
    return "validation" if bucket < 12 else "train"


def calculate(left: int, sign: str, right: int) -> int | None:
    """The result of one step, None where it is no whole number between 2 and HIGHEST."""
    if sign == "/":
        result, rest = divmod(left, right)
        if rest:
            return None
    else:
        result = left + right if sign == "+" else left - right if sign == "-" else left * right
    return result if 2 <= result <= HIGHEST else None


def solve(template: Template, numbers: dict[str, int]) -> dict[str, int] | None:
    """The numbers with the result of every step as r1, r2, ...; None where a step has no admissible result."""
    values = dict(numbers)
    for i, step in enumerate(template.steps, 1):
        result = calculate(values[step.left], step.sign, values[step.right])
        if result is None:
            return None
        values[f"r{i}"] = result
    return values


def templates_with(operations: int) -> list[int]:
    return [i for i, template in enumerate(TEMPLATES) if len(template.steps) == operations]


BY_OPERATIONS = {operations: templates_with(operations) for operations in OPERATION_SHARES}


def problem(index: int, split: Split = "train", seed: int = 0, most_operations: int = 4) -> Problem:
    """The problem at `index` of a split; `most_operations` leaves out the longer ones (for a curriculum)."""
    if split not in get_args(Split):
        raise ValueError(f"There is no split {split!r}; the splits are {', '.join(get_args(Split))}.")
    rng = random.Random(f"{seed}/{split}/{index}/{most_operations}")
    counts = [count for count in OPERATION_SHARES if count <= most_operations]
    operations = rng.choices(counts, [OPERATION_SHARES[count] for count in counts])[0]
    number = rng.choice(BY_OPERATIONS[operations])
    template = TEMPLATES[number]
    while True:
        drawn = {name: rng.randint(*bounds) for name, bounds in template.ranges.items()}
        values = solve(template, drawn)
        if values is not None and split_of(tuple(drawn.values())) == split:
            made = worded(number, drawn, values, rng)
            if made.length <= LONGEST:
                return made


def worded(number: int, drawn: dict[str, int], values: dict[str, int], rng: random.Random) -> Problem:
    """Put names, objects and one of three phrasings per step around the numbers."""
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
    """Several problems as one: their questions in a row, then their solutions in the same order."""
    return Problem(
        question=" ".join(one.question for one in problems),
        solution=" ".join(one.solution for one in problems),
        answer=", ".join(one.answer for one in problems),
        numbers=tuple(number for one in problems for number in one.numbers),
        equations=tuple(equation for one in problems for equation in one.equations),
        templates=tuple(number for one in problems for number in one.templates),
    )


def page(index: int, questions: int, split: Split = "train", seed: int = 0, most_operations: int = 4) -> Problem:
    """The `index`-th so many problems of a split, together."""
    first = index * questions
    return together([problem(i, split, seed, most_operations) for i in range(first, first + questions)])


def answer_of(text: str, questions: int = 1) -> str | None:
    """The last answers that a solution states, without leading zeros; None where it states fewer than asked for."""
    found = ANSWER_PATTERN.findall(text)
    return ", ".join(answer.lstrip("0") or "0" for answer in found[-questions:]) if len(found) >= questions else None


def is_correct(problem: Problem, text: str) -> bool:
    return answer_of(text, len(problem.templates)) == problem.answer
