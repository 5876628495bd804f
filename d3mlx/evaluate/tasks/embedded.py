"""`embedded`: the held-out word problems of the model that ships with the package; no data file is needed."""

from __future__ import annotations

from functools import lru_cache

from d3mlx.data.problems import Problem, answer_of, is_correct, problem
from d3mlx.errors import ConfigError
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, no_examples


class Embedded:
    """Asked through the chat template, judged by the number after "answer is"."""

    name = "embedded"
    size: int | None = None
    stop: tuple[str, ...] = ()

    def __init__(self, options: TaskOptions, family: str):
        no_examples(self.name, options)
        if options.data is not None:
            raise ConfigError("The embedded task generates its problems; leave out --data, or choose another --task.")
        self.chat = options.chat is not False
        self.problem = lru_cache(self.held_out)

    @staticmethod
    def held_out(index: int) -> Problem:
        return problem(index, "held-out")

    def ask(self, index: int) -> Ask:
        return Ask(self.problem(index).question, self.chat)

    def score(self, index: int, text: str) -> Verdict:
        return Verdict(is_correct(self.problem(index), text), answer_of(text))
