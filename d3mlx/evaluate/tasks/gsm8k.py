"""GSM8K: grade-school word problems, zero-shot with a chain of thought, or after worked examples.

A row has `question` and `answer`, as in the public data set. The answer is a worked solution that ends in "#### " and
the number. Prompts and stop texts are those of lm-evaluation-harness (gsm8k_cot_zeroshot and gsm8k). `strict` is its
strict-match: the answer must have the form of the prompt, character by character. `correct` takes the last number of
the text, like its flexible-extract, but compares values: $42.00, 42... and 42 are equal. A range, a power or an
unfinished calculation is not a number. The digits in m^2, CO2 and 3rd are not numbers either.
"""

from __future__ import annotations

import re
from fractions import Fraction

from d3mlx.errors import DataError
from d3mlx.evaluate.fields import Row
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, examples, no_examples, problems
from d3mlx.models import traits_of

FIELDS = {"question": str, "answer": str}
LONGEST = 60
"""Largest number of characters of a number."""

ENDS = ("</s>", "<|im_end|>")

SIGN = r"(?:(?<![A-Za-z])[-−–+]|\b(?:minus|negative)[ ])?"
CURRENCY = r"(?:(?:USD|EUR|GBP|US\$|[$€£¥])[ ]?)?"
DIGITS = r"(?!\d+(?:st|nd|rd|th)\b)(?:\d+(?:[.,\u00a0\u2009\u202f]\d+)*|\.\d+)(?:e[+-]?\d+\b)?[½⅓⅔¼¾²³]?"
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "": 1}
TERM = rf"{SIGN}{CURRENCY}{SIGN}{DIGITS}%?(?:[ ](?:hundred|thousand|million|billion)\b)?"
JOINT = r"[ \t]*(?:[-−–+*/×÷·^:x]|\\times|\\cdot|\\div|\bor\b)[ \t]*|[ ](?=\d+/\d)"
NUMBER = re.compile(rf"(?<!\d)(?<!\d[.,])(?<!\^)(?<!\^-)(?<![A-Z])(?<!\b[a-z]){TERM}(?:(?:{JOINT}){TERM})*")
"""A number with sign and currency, and all numbers that an operator, a colon or "or" joins to it."""

FRACTION = re.compile(r"\\[cdt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
VALUE = re.compile(r"([-+]?)(?:(?:(\d+) )?(\d+) ?/ ?(\d+)|(\d+\.?\d*|\.\d+)) ?([a-z]*)")


def plain(answer: str) -> str:
    """Return a number in the form for comparisons of the harness: without commas, dollar signs and final full stop."""
    return re.sub(r"[,$]", "", answer).removesuffix(".")


def gold(row: Row) -> str:
    """Return the correct answer of a row."""
    return plain(row["answer"].split("#### ")[-1].strip())


def last_number(text: str) -> str | None:
    """Return the last number in a text. None if there is none."""
    text = FRACTION.sub(r" \1\2/\3\4", text.replace("\\$", "$").replace("^{", "^"))
    text = re.sub(r"\{,\}|,?\\[!,](?=\d{3})", ",", text)
    numbers = NUMBER.findall(text)
    return numbers[-1].strip() if numbers else None


def value(number: str) -> Fraction | None:
    """Return the value of a decimal, a fraction or a mixed number. None for other texts and invalid separators."""
    x = re.sub(r"minus |negative |[−–]", "-", number)
    x = re.sub(r"USD|EUR|GBP|US\$|[$€£¥%]", "", x).replace("- ", "-").strip()
    x = re.sub(r"[\u00a0\u2009\u202f]", ",", x)
    x = re.sub(r"(?<![\d,])[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?![\d,])", lambda match: match[0].replace(",", ""), x)
    match = VALUE.fullmatch(x)
    if not match or len(x) > LONGEST:
        return None
    sign, whole, top, bottom, decimal, scale = match.groups()
    if scale not in SCALES or (bottom and int(bottom) == 0):
        return None
    size = Fraction(decimal) if decimal else int(whole or 0) + Fraction(int(top), int(bottom))
    return (-size if sign == "-" else size) * SCALES[scale]


def same(answer: str, wanted: str) -> bool:
    """Return whether two numbers have the same value. If `wanted` is not a number, compare as text."""
    size = value(wanted)
    return plain(answer) == wanted if size is None else value(answer) == size


class GSM8K:
    """Base of both forms: the data and the verdict. strict_form: captures the number in the form of the prompt."""

    name: str
    size: int | None
    stop: tuple[str, ...]
    strict_form: re.Pattern[str]

    def __init__(self, options: TaskOptions, family: str):
        self.rows = problems(self.name, options, FIELDS)
        for number, row in enumerate(self.rows, 1):
            if "#### " not in row["answer"]:
                raise DataError(
                    f"{options.data}, record {number}: the field 'answer' must end in '#### ' and a number."
                )
        self.size = len(self.rows)
        # The published runs use plain text for LLaDA and the chat template for Dream.
        self.chat = not traits_of(family).plain_questions if options.chat is None else options.chat

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer."""
        wanted = gold(self.rows[index])
        answer, strict = last_number(text), self.strict_form.search(text)
        return Verdict(
            correct=answer is not None and same(answer, wanted),
            answer=answer,
            strict=strict is not None and plain(strict[1]) == wanted,
        )


class ChainOfThought(GSM8K):
    """Zero-shot form: the prompt begins the reasoning."""

    name = "gsm8k-cot"
    stop: tuple[str, ...] = ("Q:", *ENDS)
    strict_form = re.compile(r"The answer is (\-?[0-9\.\,]+).")

    def __init__(self, options: TaskOptions, family: str):
        no_examples(self.name, options)
        super().__init__(options, family)

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        return Ask(f"Q: {self.rows[index]['question']}\nA: Let's think step by step.", self.chat)


class FewShot(GSM8K):
    """Form with five worked examples. d3LLM calls it Long-GSM8K."""

    name = "gsm8k"
    stop: tuple[str, ...] = ("Question:", *ENDS)
    strict_form = re.compile(r"#### (\-?[0-9\.\,]+)")

    def __init__(self, options: TaskOptions, family: str):
        super().__init__(options, family)
        rows = examples(self.name, options, FIELDS, default=5)
        self.examples = "".join(f"{self.question(row)} {row['answer']}\n\n" for row in rows)

    @staticmethod
    def question(row: Row) -> str:
        """Return the question of a row without its answer."""
        return f"Question: {row['question']}\nAnswer:"

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        return Ask(self.examples + self.question(self.rows[index]), self.chat)
