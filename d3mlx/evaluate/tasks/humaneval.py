"""HumanEval: complete a Python function from its signature and docstring; correct if the given tests pass.

A row has `prompt`, `test` and `entry_point`, as in the public data set (Chen et al. 2021). LLaDA is asked for the whole
solution through its chat template, and its text is sanitised: the first code block, of that the longest run of lines
that is valid Python, of that what the entry point needs. Dream's answer begins with the prompt and is its
continuation up to the end of the code block.
"""

from __future__ import annotations

from d3mlx.evaluate.programs import fenced, sanitised
from d3mlx.evaluate.sandbox import Sandbox
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, no_examples, problems
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
        """The solution, without the tests."""
        row = self.rows[index]
        if self.continues:
            return f"{row['prompt']}\n{text}"
        return sanitised(f"{row['prompt']}\n{fenced(text)}", [row["entry_point"]])

    def score(self, index: int, text: str) -> Verdict:
        row, program = self.rows[index], self.program(index, text)
        outcome = self.sandbox.run(f"{program}\n{row['test']}\ncheck({row['entry_point']})\n")
        return Verdict(outcome.passed, program, why=outcome.why)
