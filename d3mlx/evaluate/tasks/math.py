"""MATH in Minerva's form.

A row has `problem` and `solution`, as in the public data sets (Hendrycks et al. 2021; MATH-500). The last \\boxed{...}
of the solution is the correct answer, unless the record has `answer`. The prompt is Minerva's (Lewkowycz et al. 2022).
LLaDA gets four worked examples; Dream gets none, and the chat template. `strict` is the published measure: the answer
after "Final Answer: The final answer is", in Minerva's normal form. `correct` also accepts the last boxed expression of
a text without such a line. It compares meanings, so it refuses some answers that only Minerva's form makes equal.
"""

from __future__ import annotations

import re

from d3mlx.errors import DataError
from d3mlx.evaluate.equivalence import equivalent, last_boxed, published
from d3mlx.evaluate.fields import Row
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, examples, problems
from d3mlx.models import traits_of

FIELDS = {"problem": str, "solution": str}
BEGIN, END = "Final Answer: The final answer is", "I hope it is correct."
FINAL = re.compile(rf"{re.escape(BEGIN)}(.*?)\.? ?{re.escape(END)}", re.DOTALL)


def gold(row: Row) -> str | None:
    """Return the correct answer of a row. None if there is none."""
    stated = row.get("answer")
    return stated if isinstance(stated, str) else last_boxed(row["solution"])


def final_answer(text: str) -> str | None:
    """Return the answer in Minerva's last line. The second half of the line may be missing. None without the line."""
    match = FINAL.search(f"{text} {END}")
    return match[1].strip() if match else None


def worked(row: Row) -> str:
    """Return a worked example with Minerva's line at its end."""
    solution = row["solution"]
    if BEGIN not in solution:
        solution += f"\n{BEGIN} ${gold(row)}$. {END}"
    return f"{question(row)} {solution}\n\n"


def question(row: Row) -> str:
    """Return the question of a row without its solution."""
    return f"Problem:\n{row['problem']}\n\nSolution:"


class Math:
    """The MATH task."""

    name = "math"
    size: int | None
    stop: tuple[str, ...] = ("Problem:",)

    def __init__(self, options: TaskOptions, family: str):
        self.rows = problems(self.name, options, FIELDS)
        plain = traits_of(family).plain_questions
        shots = examples(self.name, options, FIELDS, default=4 if plain else 0)
        for path, rows in ((options.data, self.rows), (options.shots_data, shots)):
            for number, row in enumerate(rows, 1):
                if gold(row) is None:
                    raise DataError(f"{path}, record {number}: the field 'solution' has no \\boxed{{answer}}.")
        self.examples = "".join(map(worked, shots))
        self.size = len(self.rows)
        self.chat = not plain if options.chat is None else options.chat

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        return Ask(self.examples + question(self.rows[index]), self.chat)

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer."""
        wanted = gold(self.rows[index])
        assert wanted is not None, "rows without an answer were refused"
        stated = final_answer(text)
        answer = last_boxed(text) if stated is None else stated.split("\n\n")[0]
        return Verdict(
            correct=answer is not None and equivalent(answer, wanted),
            answer=answer,
            strict=stated is not None and published(stated, wanted),
        )
