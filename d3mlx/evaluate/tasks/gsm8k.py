"""GSM8K: grade-school word problems, zero-shot with a chain of thought, or after worked examples.

A row has `question` and `answer`, the worked solution that ends in "#### " and the number, as in the public data set.
Prompts, stop texts and both measures are those of lm-evaluation-harness (gsm8k_cot_zeroshot and gsm8k): `correct` is
its flexible-extract, the last number of the text; `strict` wants the answer in the form that the prompt asks for.
"""

from __future__ import annotations

import re

from d3mlx.errors import DataError
from d3mlx.evaluate.fields import Row
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, examples, no_examples, problems
from d3mlx.models import traits_of

FIELDS = {"question": str, "answer": str}
NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
ENDS = ("</s>", "<|im_end|>")


def plain(answer: str) -> str:
    """A number as exact match compares it: without separators, dollar signs and a final full stop."""
    return re.sub(r"[,$]", "", answer).removesuffix(".")


def gold(row: Row) -> str:
    return plain(row["answer"].split("#### ")[-1].strip())


def last_number(text: str) -> str | None:
    """Return the last number in a text, None if it has none."""
    numbers = NUMBER.findall(text)
    return numbers[-1][0] or numbers[-1][1] if numbers else None


class GSM8K:
    """What both forms share: the data and the verdict. `strict_form` captures the number where it is asked for."""

    name: str
    size: int | None
    stop: tuple[str, ...]
    strict_form: re.Pattern[str]

    def __init__(self, options: TaskOptions, family: str):
        self.rows = problems(self.name, options, FIELDS)
        for number, row in enumerate(self.rows, 1):
            if "#### " not in row["answer"]:
                raise DataError(f"{options.data}, row {number}: the field 'answer' must end in '#### ' and a number.")
        self.size = len(self.rows)
        # LLaDA is asked plain text in the published runs, Dream through its chat template.
        self.chat = not traits_of(family).plain_questions if options.chat is None else options.chat

    def score(self, index: int, text: str) -> Verdict:
        wanted = gold(self.rows[index])
        answer, strict = last_number(text), self.strict_form.search(text)
        return Verdict(
            correct=answer is not None and plain(answer) == wanted,
            answer=answer,
            strict=strict is not None and plain(strict[1]) == wanted,
        )


class ChainOfThought(GSM8K):
    """Zero-shot: the prompt begins the reasoning."""

    name = "gsm8k-cot"
    stop: tuple[str, ...] = ("Q:", *ENDS)
    strict_form = re.compile(r"The answer is (\-?[0-9\.\,]+).")

    def __init__(self, options: TaskOptions, family: str):
        no_examples(self.name, options)
        super().__init__(options, family)

    def ask(self, index: int) -> Ask:
        return Ask(f"Q: {self.rows[index]['question']}\nA: Let's think step by step.", self.chat)


class FewShot(GSM8K):
    """After five worked examples; d3LLM calls it Long-GSM8K."""

    name = "gsm8k"
    stop: tuple[str, ...] = ("Question:", *ENDS)
    strict_form = re.compile(r"#### (\-?[0-9\.\,]+)")

    def __init__(self, options: TaskOptions, family: str):
        super().__init__(options, family)
        rows = examples(self.name, options, FIELDS, default=5)
        self.shown = "".join(f"{self.question(row)} {row['answer']}\n\n" for row in rows)

    @staticmethod
    def question(row: Row) -> str:
        return f"Question: {row['question']}\nAnswer:"

    def ask(self, index: int) -> Ask:
        return Ask(self.shown + self.question(self.rows[index]), self.chat)
