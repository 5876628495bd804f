"""`embedded`: the held-out word problems of the model that ships with the package; no data file is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from d3mlx.data.problems import SHOT_OPERATIONS, Problem, Split, answer_of, is_correct, page, problem
from d3mlx.errors import ConfigError
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, number_of_examples


class Embedded:
    """Asked through the chat template, judged by the number after "answer is".

    Worked examples are training problems with their solutions, as earlier turns; the model has been trained with five.
    split: whatever is chosen by results is chosen on "validation". questions: so many problems are asked at once, and
    only an answer that is right in all of them is correct.
    """

    name = "embedded"
    size: int | None = None
    stop: tuple[str, ...] = ()

    def __init__(self, options: TaskOptions, family: str, split: Split = "held-out", questions: int = 1):
        if options.data is not None or options.shots_data is not None:
            raise ConfigError(
                "The embedded task generates its problems and examples; leave out --data and --shots-data, or choose "
                "another --task."
            )
        self.chat = options.chat is not False
        self.shots = number_of_examples(options, default=0)
        if self.shots and not self.chat:
            raise ConfigError("The embedded task shows worked examples as turns of a chat; use its chat template.")
        self.questions = questions
        self.problem: Callable[[int], Problem] = lru_cache(partial(page, questions=questions, split=split))

    def ask(self, index: int) -> Ask:
        first = index * self.shots
        shown = [problem(i, "train", most_operations=SHOT_OPERATIONS) for i in range(first, first + self.shots)]
        before = tuple((example.question, example.solution) for example in shown)
        return Ask(self.problem(index).question, self.chat, before=before)

    def score(self, index: int, text: str) -> Verdict:
        return Verdict(is_correct(self.problem(index), text), answer_of(text, self.questions))
