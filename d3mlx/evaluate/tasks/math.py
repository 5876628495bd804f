"""MATH in Minerva's form.

A row has `problem` and `solution`, whose last \\boxed{...} is the answer (`answer` overrides it), as in the public data
sets (Hendrycks et al. 2021; MATH-500). The prompt is Minerva's (Lewkowycz et al. 2022): four worked examples for LLaDA,
none and the chat template for Dream. `strict` is the published measure: the answer after "Final Answer: The final
answer is", compared in Minerva's normal form. `correct` also takes the last boxed expression of a text without such a
line, and compares meanings, so some answers that only Minerva's form makes equal are wrong.
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
    stated = row.get("answer")
    return stated if isinstance(stated, str) else last_boxed(row["solution"])


def final_answer(text: str) -> str | None:
    """Return the answer in Minerva's last line; the line may be cut off before its second half."""
    match = FINAL.search(f"{text} {END}")
    return match[1].strip() if match else None


def worked(row: Row) -> str:
    """A worked example, its solution closed by Minerva's line."""
    solution = row["solution"]
    if BEGIN not in solution:
        solution += f"\n{BEGIN} ${gold(row)}$. {END}"
    return f"{question(row)} {solution}\n\n"


def question(row: Row) -> str:
    return f"Problem:\n{row['problem']}\n\nSolution:"


class Math:
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
                    raise DataError(f"{path}, row {number}: the field 'solution' has no \\boxed{{answer}}.")
        self.shown = "".join(map(worked, shots))
        self.size = len(self.rows)
        self.chat = not plain if options.chat is None else options.chat

    def ask(self, index: int) -> Ask:
        return Ask(self.shown + question(self.rows[index]), self.chat)

    def score(self, index: int, text: str) -> Verdict:
        wanted = gold(self.rows[index])
        assert wanted is not None, "rows without an answer were refused"
        stated = final_answer(text)
        answer = last_boxed(text) if stated is None else stated.split("\n\n")[0]
        return Verdict(
            correct=answer is not None and equivalent(answer, wanted),
            answer=answer,
            strict=stated is not None and published(stated, wanted),
        )
