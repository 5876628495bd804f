"""Training batches of the composed stories: the kinds of `batches`, for words of several tokens.

A batch is a pure function of (kind, index, seed), as in `batches`.
"""

from __future__ import annotations

import random

from d3mlx.data.problems import Problem, Split
from d3mlx.data.stories.stories import equations, page, problem
from d3mlx.data.stories.words import CATEGORIES, NAMES, made_up, plural, words_of
from d3mlx.research.batches import PAIRS, Batch, Source, stack

QUESTIONS = 2
"""Problems in a prompt with several."""

MADE_UP_KEYS = 0.6
"""Share of the words of recall exercises that are made up."""

NUMBER_VALUES = 0.5
"""Share of the values of recall exercises that are numbers."""

THINGS = tuple(plural(thing) for each in CATEGORIES.values() for thing in words_of(each.things, "known"))
KNOWN_NAMES = words_of(NAMES, "known")


class StorySource(Source):
    """Builder of every kind of batch of stories.

    questions: problems in one prompt. The canvas is longer by the same factor.
    """

    def problem(self, index: int, most_operations: int = 4) -> Problem:
        """Return the training problem at `index`."""
        return problem(index, "train", self.seed, most_operations)

    def equations_of(self, index: int) -> tuple[str, ...]:
        """Return the equations of a training problem, without its wording."""
        return equations(index, self.seed)

    def page(self, index: int, most_operations: int, split: Split) -> Problem:
        """Return the problem, or the group of problems in one prompt, at `index` of a split."""
        return page(index, self.questions, split, self.seed, most_operations)

    def worked(self, index: int, most_operations: int = 4) -> Batch:
        """Return conversations of 2 to 4 turns, masked as in `Source.worked`. Earlier problems are short."""
        rng = random.Random(f"worked/{self.seed}/{index}")
        return self.after_turns(index, most_operations, rng.randint(1, 3), rng)

    def recall(self, index: int) -> Batch:
        """Return prompts with pairs of a word and a value; the responses are the same pairs in another order.

        Most words have several tokens. The first word of a prompt has no space before it, as a name at the beginning
        of a question, so its tokens differ from those to write.
        """
        rng = random.Random(f"recall/{self.seed}/{index}")
        prompts, responses = [], []
        for _ in range(self.size):
            pairs = [f"{self.word(rng)} {self.word_or_number(rng)}" for _ in range(PAIRS)]
            prompts.append(" ".join(pairs))
            rng.shuffle(pairs)
            responses.append(" ".join(pairs))
        examples = self.answered(prompts, responses)
        return Batch(*stack(examples, max(len(example.ids) for example in examples), self.end))

    def word(self, rng: random.Random) -> str:
        """Return a name or a plural thing, known or made up."""
        is_name = rng.random() < 0.5
        if rng.random() < MADE_UP_KEYS:
            word = made_up(rng, "known")
            return word.capitalize() if is_name else plural(word)
        return rng.choice(KNOWN_NAMES if is_name else THINGS)

    def word_or_number(self, rng: random.Random) -> str:
        return str(rng.randint(2, 200)) if rng.random() < NUMBER_VALUES else self.word(rng)
