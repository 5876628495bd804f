"""MBPP: write a Python function from a sentence and its tests. It is correct if all tests pass.

A row has `text` (or `prompt`) and `test_list`, and may have `test_setup_code` or `test_imports`. Worked examples also
need `code`. This is the layout of the public data set (Austin et al. 2021). Its test split has the task ids 11 to 510.
LLaDA gets three worked examples, with its chat template. Dream gets none, and its answer begins with a code block.
`correct` extracts the functions that the tests use from any usual form of text. `strict` follows the published rules:
for LLaDA those of HumanEval, and for Dream the text without changes.
"""

from __future__ import annotations

from d3mlx.evaluate.fields import Row
from d3mlx.evaluate.programs import fenced, names_in, names_of_tests, sanitized, solution
from d3mlx.evaluate.sandbox import Sandbox
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, examples, problems, tested
from d3mlx.models import traits_of

FIELDS: dict[str, type] = {"text|prompt": str, "test_list": list, "test_imports?": list, "test_setup_code?": str}
EXAMPLE_FIELDS: dict[str, type] = {**FIELDS, "code": str}
ROLE = "You are an expert Python programmer, and here is your task:"


class MBPP:
    """The MBPP task. begins: the prompt begins the code block of the answer (Dream)."""

    name = "mbpp"
    size: int | None
    stop: tuple[str, ...]

    def __init__(self, options: TaskOptions, family: str):
        self.sandbox = Sandbox(self.name, options.allow_code)
        self.rows = problems(self.name, options, FIELDS)
        self.size = len(self.rows)
        self.chat = options.chat is not False
        self.begins = not traits_of(family).plain_questions
        self.stop = ("```",) if self.begins else ("[DONE]",)
        rows = examples(self.name, options, EXAMPLE_FIELDS, default=0 if self.begins else 3)
        self.examples = "".join(map(self.worked, rows))

    def question(self, row: Row) -> str:
        """Return the question of a row without its solution."""
        tests = "\n".join(row["test_list"][:3])
        if self.begins:
            return f"{ROLE}\n{row['text']}\nYour code should pass these tests:\n{tests}"
        return f"{ROLE} {row['text']} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"

    def worked(self, row: Row) -> str:
        """Return a worked example."""
        if self.begins:
            return f"{self.question(row)}\n```python\n{row['code']}\n```\n\n"
        return f"{self.question(row)}{row['code']}\n[DONE]\n\n"

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        opening = "Here is the completed function:\n```python\n" if self.begins else ""
        return Ask(self.examples + self.question(self.rows[index]), self.chat, opening)

    def program(self, index: int, text: str) -> str:
        """Return the solution, without the tests."""
        return solution(text, set().union(*map(names_of_tests, self.rows[index]["test_list"])))

    def published(self, index: int, text: str) -> str:
        """Return the solution by the rules of the published evaluation."""
        return text if self.begins else sanitized(fenced(text), names_in(self.rows[index]["test_list"]))

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer."""
        row = self.rows[index]
        before = [*row["test_imports"], row["test_setup_code"]]

        def with_tests(program: str) -> str:
            return "\n".join([*before, program, *row["test_list"]]) + "\n"

        return tested(self.sandbox, with_tests, self.program(index, text), self.published(index, text))
