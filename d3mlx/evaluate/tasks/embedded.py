"""`embedded`: the held-out word problems of the built-in model. It needs no data file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from d3mlx.data.stories.problem import Problem, Split, answer_of, is_correct
from d3mlx.data.stories.stories import SHOT_OPERATIONS, page, problem
from d3mlx.data.stories.words import Words
from d3mlx.errors import ConfigError
from d3mlx.evaluate.tasks.base import Ask, TaskOptions, Verdict, number_of_examples


@dataclass(frozen=True)
class Kind:
    """A kind of problems.

    questions: problems per prompt; an answer is correct only if all of them are. split: use "validation" for all
    choices that depend on results. words, wordings: as in `problem`.
    """

    questions: int = 1
    split: Split = "held-out"
    words: Words = "known"
    wordings: Words = "known"


HELD_OUT = Kind()


class Embedded:
    """Word problems with the chat template, judged by the number after "answer is".

    Worked examples are training problems with their solutions, as earlier turns. The models were trained with up to
    three. kind: of the problems.
    """

    name = "embedded"
    size: int | None = None
    stop: tuple[str, ...] = ()

    def __init__(self, options: TaskOptions, family: str, kind: Kind = HELD_OUT):
        if options.data is not None or options.shots_data is not None:
            raise ConfigError(
                "Task embedded generates its problems and examples. Leave out --data and --shots-data, or choose "
                "another --task."
            )
        self.chat = options.chat is not False
        self.shots = number_of_examples(options, default=0)
        if self.shots and not self.chat:
            raise ConfigError(
                "Task embedded needs the chat template for worked examples. Leave out --no-apply-chat-template."
            )
        self.questions = kind.questions
        self.problem: Callable[[int], Problem] = lru_cache(partial(page, **vars(kind)))

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        first = index * self.shots
        examples = [problem(i, "train", most_operations=SHOT_OPERATIONS) for i in range(first, first + self.shots)]
        before = tuple((example.question, example.solution) for example in examples)
        return Ask(self.problem(index).question, self.chat, before=before)

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer."""
        return Verdict(is_correct(self.problem(index), text), answer_of(text, self.questions))
