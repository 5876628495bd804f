"""HumanEval: complete a Python function from its signature and docstring; correct if the given tests pass.

A row has `prompt`, `test` and `entry_point`, as in the public data set (Chen et al. 2021). LLaDA is asked for the whole
solution through its chat template. Dream's answer begins with the prompt and is its continuation up to the end of the
code block. `correct` takes the function, or its body after the prompt, out of any usual form of text. `strict` keeps
the published rules. LLaDA's text is sanitised: the first code block, of that the longest run of lines that is valid
Python, of that what the entry point needs. Dream's text is the program as it stands.
"""

from __future__ import annotations

from d3mlx.evaluate.programs import fenced, names_of_tests, sanitised, solution
from d3mlx.evaluate.sandbox import Sandbox
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, no_examples, problems, tested
from d3mlx.models import traits_of

FIELDS = {"prompt": str, "test": str, "entry_point": str}
REQUEST = "Write a solution to the following problem and make sure that it passes the tests:\n"


class HumanEval:
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
        """Return the solution as the published evaluation cuts it out."""
        row = self.rows[index]
        if self.continues:
            return f"{row['prompt']}\n{text}"
        return sanitised(f"{row['prompt']}\n{fenced(text)}", [row["entry_point"]])

    def score(self, index: int, text: str) -> Verdict:
        row = self.rows[index]

        def with_tests(program: str) -> str:
            return f"{program}\n{row['test']}\ncheck({row['entry_point']})\n"

        return tested(self.sandbox, with_tests, self.program(index, text), self.published(index, text))
