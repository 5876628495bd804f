"""Training batches of token ids: worded problems, arithmetic drills, and associative recall.

A batch is a pure function of (kind, index, seed), so a resumed run gets the same batches as an uninterrupted one.
There is no attention mask, so sequences are not padded. Instead, end tokens follow a response up to the length of the
batch, as in the canvas during generation.

Shapes: B sequences of L tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from d3mlx.data.stories.problem import Problem, Split
from d3mlx.data.stories.stories import SHOT_OPERATIONS, equations, page, problem
from d3mlx.data.stories.tokenizer import BOS, END, TURN, header
from d3mlx.data.stories.words import CATEGORIES, NAMES, made_up, plural, words_of

CANVAS = 64
"""Tokens of a response. The longest solution and its end token fit. The models are evaluated with this length."""

POOL = 8
"""Batches that are drawn together and sorted by length, so that a batch has problems of similar length."""

END_WEIGHT = 0.1
"""Loss weight of the end tokens after a response."""

FAR_WEIGHT = 0.1
"""Loss weight of the text after the block that is being decoded. Much of it cannot be known yet."""

BLOCKS = (8, 16, 32)
"""Sizes of the block that is being decoded."""

SHOTS = 3
"""Worked examples before a problem, in experiments."""

QUESTIONS = 2
"""Problems in a prompt with several."""

EQUATIONS = 8
"""Equations of a drill."""

SLACK = 3
"""Largest number of end tokens after a result of a drill."""

PAIRS = 5
"""Pairs of a recall exercise."""

MADE_UP_KEYS = 0.6
"""Share of the words of recall exercises that are made up."""

NUMBER_VALUES = 0.5
"""Share of the values of recall exercises that are numbers."""

THINGS = tuple(plural(thing) for each in CATEGORIES.values() for thing in words_of(each.things, "known"))
KNOWN_NAMES = words_of(NAMES, "known")


@dataclass(frozen=True)
class Batch:
    """Token ids [B, L] and loss weights [B, L] of a batch. Positions of weight 0 are never masked."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    lowest_ratio: float = 0.0
    """Mask ratios are drawn between this and 1."""
    hidden_from: NDArray[np.int32] | None = None
    """Position [B] from which on everything is masked."""


@dataclass(frozen=True)
class Example:
    """One sequence, before end tokens are added.

    ids: prompt and response. weights: a loss weight per token, 0 for tokens that stay visible. prompt: prompt tokens.
    """

    ids: list[int]
    weights: Sequence[float]
    prompt: int


def stack(
    examples: list[Example], length: int, end: int, end_weight: float = END_WEIGHT
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return token ids and loss weights of examples, both [B, L], filled with end tokens.

    L is `length`, rounded up to a multiple of 8.
    """
    shape = len(examples), -(-length // 8) * 8
    ids, weights = np.full(shape, end, np.int32), np.full(shape, end_weight, np.float32)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        weights[row, : len(example.ids)] = example.weights
    return ids, weights


class Source:
    """Builder of every kind of batch for one tokenizer, batch size and seed.

    questions: problems in one prompt. The canvas is longer by the same factor.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, size: int, seed: int, questions: int = 1):
        self.size, self.seed, self.questions = size, seed, questions
        self.canvas = questions * CANVAS
        self.encode = tokenizer.backend_tokenizer.encode_batch
        self.end: int = tokenizer.convert_tokens_to_ids(END)
        self.equals: int = tokenizer.convert_tokens_to_ids("=")
        self.digits: list[int] = tokenizer.convert_tokens_to_ids(list("0123456789"))
        self.opening: list[int] = tokenizer.convert_tokens_to_ids([BOS, header("user")])
        self.turn: list[int] = tokenizer.convert_tokens_to_ids([TURN, header("assistant")])
        self.sorted_pool: Callable[[int, int, Split], list[list[Example]]] = lru_cache(4)(self.draw_pool)

    def examples(self, problems: Sequence[Problem]) -> list[Example]:
        """Return problems as token ids."""
        return self.answered([p.question for p in problems], [p.solution for p in problems])

    def answered(self, questions: list[str], answers: list[str]) -> list[Example]:
        """Return questions with their answers as token ids."""
        out = []
        for question, solution in zip(self.encode(questions), self.encode(answers), strict=True):
            prompt = [*self.opening, *question.ids, *self.turn]
            response = [*solution.ids, self.turn[0]]
            out.append(Example(prompt + response, [False] * len(prompt) + [True] * len(response), len(prompt)))
        return out

    def draw_pool(self, number: int, most_operations: int, split: Split) -> list[list[Example]]:
        count = POOL * self.size
        indices = range(number * count, (number + 1) * count)
        drawn = [page(i, self.questions, split, self.seed, most_operations) for i in indices]
        examples = sorted(self.examples(drawn), key=lambda example: len(example.ids))
        batches = [examples[i : i + self.size] for i in range(0, count, self.size)]
        random.Random(f"pool/{self.seed}/{number}").shuffle(batches)
        return batches

    def problems(self, index: int, most_operations: int = 4, split: Split = "train") -> Batch:
        """Return problems of similar length. A quarter of the batches include the whole canvas."""
        examples = self.sorted_pool(index // POOL, most_operations, split)[index % POOL]
        rng = random.Random(f"problems/{self.seed}/{index}")
        longest = max(len(example.ids) for example in examples)
        if rng.random() < 0.25:
            longest = max(longest, max(example.prompt for example in examples) + self.canvas)
        return Batch(*stack(examples, longest, self.end))

    def continued(self, index: int, most_operations: int = 4) -> Batch:
        """Return problems whose solution is visible up to one of its equal signs. Nearly all of the rest is masked.

        As in decoding, the length of the next result is unknown, and no copy of it is visible. Only the result and
        the token after it have full loss weight.
        """
        pool = self.sorted_pool(index // POOL, most_operations, "train")
        rng = random.Random(f"continued/{self.seed}/{index}")
        examples = [self.cut(example, rng) for example in pool[index % POOL]]
        longest = max(len(example.ids) for example in examples)
        return Batch(*stack(examples, longest, self.end), lowest_ratio=0.9)

    def cut(self, example: Example, rng: random.Random) -> Example:
        """Return the example with one result to compute next."""
        signs = [i for i in range(example.prompt, len(example.ids)) if example.ids[i] == self.equals]
        shown = rng.choice(signs) + 1
        end = shown
        while example.ids[end] in self.digits:
            end += 1
        weights = [0.0] * shown + [1.0] * (end + 1 - shown) + [END_WEIGHT] * (len(example.ids) - end - 1)
        return Example(example.ids, weights, example.prompt)

    def blocks(self, index: int, most_operations: int = 4) -> Batch:
        """Return problems as a block decoder sees them: visible up to a block, partly in it, and masked after it.

        Masks that are spread evenly over a solution rarely look like this.
        """
        pool = self.sorted_pool(index // POOL, most_operations, "train")
        return self.in_blocks(pool[index % POOL], random.Random(f"blocks/{self.seed}/{index}"))

    def in_blocks(self, solved: list[Example], rng: random.Random) -> Batch:
        """Return complete examples as a block decoder sees them, each with a random block."""
        examples, ends = [], []
        for example in solved:
            start = rng.randrange(example.prompt, len(example.ids))
            end = start + rng.choice(BLOCKS)
            weights = [0.0] * start + [1.0 if i < end else FAR_WEIGHT for i in range(start, len(example.ids))]
            examples.append(Example(example.ids, weights, example.prompt))
            ends.append(end)
        longest = max(example.prompt for example in examples) + self.canvas
        return Batch(*stack(examples, longest, self.end), hidden_from=np.array(ends, np.int32))

    def worked(self, index: int, most_operations: int = 4) -> Batch:
        """Return conversations of 2 to 4 turns. Earlier problems are short.

        The sequences are long, so these batches have a quarter of the usual number. Half of the batches are masked
        as block decoders see them. The others mask the earlier answers too.
        """
        rng = random.Random(f"worked/{self.seed}/{index}")
        questions = self.sorted_pool(index // POOL, most_operations, "train")[index % POOL][: self.size // 4]
        count = rng.randint(1, 3) * len(questions)
        drawn = [problem(rng.getrandbits(40), "train", self.seed, SHOT_OPERATIONS) for _ in range(count)]
        earlier = self.examples(drawn)
        examples = [self.conversation([*earlier[i :: len(questions)], last]) for i, last in enumerate(questions)]
        if rng.random() < 0.5:
            return self.in_blocks(examples, rng)
        longest = max(example.prompt for example in examples) + self.canvas
        return Batch(*stack(examples, longest, self.end))

    def conversation(self, turns: list[Example]) -> Example:
        """Return the turns as one text with one first token. Its prompt ends where the last answer begins."""
        first, *others = turns
        ids, weights = list(first.ids), list(first.weights)
        for turn in others:
            prompt = len(ids) + turn.prompt - 1
            ids += turn.ids[1:]
            weights += turn.weights[1:]
        return Example(ids, weights, prompt)

    def drills(self, index: int, chained: bool = False) -> Batch:
        """Return equations from the solutions of training problems, with their results masked.

        Each equation is from another problem. If `chained`, the equations of a problem stay together. Most then begin
        with the result of the equation before, so it can be copied. This teaches copying, and little arithmetic.
        """
        rng = random.Random(f"drills/{self.seed}/{index}")
        examples = []
        for _ in range(self.size):
            listed: list[str] = []
            while len(listed) < EQUATIONS:
                drawn = equations(rng.getrandbits(40), self.seed)
                listed += drawn if chained else [rng.choice(drawn)]
            examples.append(self.drill(listed[:EQUATIONS], rng))
        longest = max(len(example.ids) for example in examples)
        return Batch(*stack(examples, longest, self.end, end_weight=0.0), lowest_ratio=0.8)

    def drill(self, listed: list[str], rng: random.Random) -> Example:
        """Return equations whose results are to be computed.

        Up to SLACK end tokens follow each of them, so that the number of masks does not give the length of a result.
        """
        ids = [*self.opening, *self.turn]
        prompt, weights = len(ids), [0.0] * len(ids)
        for encoded in self.encode([f" {equation}." for equation in listed]):
            equation, slack = encoded.ids, rng.randint(0, SLACK)
            left = equation.index(self.equals) + 1
            ids += [*equation, *[self.end] * slack]
            weights += [*[0.0] * left, *[1.0] * (len(equation) - left), *[END_WEIGHT] * slack]
        return Example(ids, weights, prompt)

    def recall(self, index: int) -> Batch:
        """Return prompts with pairs of a word and a value; the responses are the same pairs in another order.

        These exercises teach copying from the prompt. Problems alone do not teach it in a reasonable time. Most words
        have several tokens. The first word of a prompt has no space before it, as a name at the beginning
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
