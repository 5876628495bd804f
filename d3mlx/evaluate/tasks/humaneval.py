"""HumanEval: complete a Python function from its signature and docstring. It is correct if the tests pass.

A row has `prompt`, `test` and `entry_point`, as in the public data set (Chen et al. 2021). LLaDA writes the complete
solution, with its chat template. Dream's answer begins with the prompt and continues it to the end of the code block.
`correct` extracts the function, or its body after the prompt, from any usual form of text. `strict` follows the
published rules. For LLaDA they take the first code block, then its longest run of lines that is valid Python. Of
these lines they keep the code that the entry point needs. Dream's text is the program without changes.
"""

from __future__ import annotations

from d3mlx.evaluate.programs import fenced, names_of_tests, sanitized, solution
from d3mlx.evaluate.sandbox import Sandbox
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, no_examples, problems, tested
from d3mlx.models import traits_of

FIELDS = {"prompt": str, "test": str, "entry_point": str}
REQUEST = "Write a solution to the following problem and make sure that it passes the tests:\n"


class HumanEval:
    """The HumanEval task. continues: the answer continues the prompt (Dream)."""

    name = "humaneval"
    size: int | None
    stop: tuple[str, ...]

    def __init__(self, options: TaskOptions, family: str):
        no_examples(self.name, options)
        self.sandbox = Sandbox(self.name, options.allow_code)
        self.rows = problems(self.name, options, FIELDS)
        self.size = len(self.rows)
        self.chat = options.chat is not False
        self.continues = not traits_of(family).plain_questions
        self.stop = ("```",) if self.continues else ()

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        prompt = self.rows[index]["prompt"]
        if self.continues:
            opening = f"Here is the completed function:\n```python\n{prompt}\n"
            return Ask(f"{REQUEST}```\n{prompt}\n```\n ", self.chat, opening)
        return Ask(f"{REQUEST}```python\n{prompt}\n```\n ", self.chat)

    def program(self, index: int, text: str) -> str:
        """Return the solution, without the tests."""
        row = self.rows[index]
        return solution(text, {row["entry_point"], *names_of_tests(row["test"])}, row["prompt"])

    def published(self, index: int, text: str) -> str:
        """Return the solution by the rules of the published evaluation."""
        row = self.rows[index]
        if self.continues:
            return f"{row['prompt']}\n{text}"
        return sanitized(f"{row['prompt']}\n{fenced(text)}", [row["entry_point"]])

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer."""
        row = self.rows[index]

        def with_tests(program: str) -> str:
            return f"{program}\n{row['test']}\ncheck({row['entry_point']})\n"

        return tested(self.sandbox, with_tests, self.program(index, text), self.published(index, text))
