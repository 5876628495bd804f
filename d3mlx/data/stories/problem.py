"""Problems with worked solutions: the splits they belong to, several in one prompt, and the correctness of answers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "held-out"]

ANSWER_PATTERN = re.compile(r"[Aa]nswer is (\d+)")


@dataclass(frozen=True)
class Problem:
    """A word problem, or several in one prompt. numbers: of the question. equations: the steps of the solution."""

    question: str
    solution: str
    answer: str
    numbers: tuple[int, ...]
    equations: tuple[str, ...]
    scenes: tuple[int, ...]
    """Scene index of each question."""

    @property
    def operations(self) -> int:
        """Return the number of operations."""
        return len(self.equations)


def split_of(numbers: tuple[int, ...]) -> Split:
    """Return the split of problems with these numbers, in any order."""
    bucket = zlib.crc32(repr(sorted(numbers)).encode()) % 100
    if bucket < 8:
        return "held-out"
    return "validation" if bucket < 12 else "train"


def together(problems: Sequence[Problem]) -> Problem:
    """Return several problems as one: all questions, then all solutions in the same order."""
    return Problem(
        question=" ".join(part.question for part in problems),
        solution=" ".join(part.solution for part in problems),
        answer=", ".join(part.answer for part in problems),
        numbers=tuple(number for part in problems for number in part.numbers),
        equations=tuple(equation for part in problems for equation in part.equations),
        scenes=tuple(number for part in problems for number in part.scenes),
    )


def answer_of(text: str, questions: int = 1) -> str | None:
    """Return the last `questions` answers of a solution, without leading zeros. None if it has fewer."""
    answers = ANSWER_PATTERN.findall(text)
    if len(answers) < questions:
        return None
    return ", ".join(answer.lstrip("0") or "0" for answer in answers[-questions:])


def is_correct(problem: Problem, text: str) -> bool:
    """Return whether a solution has the correct answers."""
    return answer_of(text, len(problem.scenes)) == problem.answer
