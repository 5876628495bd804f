"""Training batches of token ids: worded problems, arithmetic drills, and associative recall.

A batch is a pure function of (kind, index, seed), so a resumed run sees what an uninterrupted one would have seen.
No attention mask exists, so sequences are not padded: a response is followed by end tokens up to the batch's length,
as its canvas is at generation time.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from d3mlx.data.problems import SHOT_OPERATIONS, Problem, Split, page, problem
from d3mlx.data.tokens import BOS, END, TURN, header

CANVAS = 64
"""Response tokens that the longest solution and its end fit into; the length that the model is evaluated with."""

POOL = 8
"""Batches drawn together and sorted by length, so that short problems do not pay for long ones."""

END_WEIGHT = 0.1
FAR_WEIGHT = 0.1
"""Loss weight of the text after the block that is being decoded: much of it cannot be known yet."""

BLOCKS = (8, 16, 32)
SHOTS = 5

EQUATIONS = 8
PAIRS = 5
RESULT = re.compile(r"=(\d+)")


@dataclass(frozen=True)
class Batch:
    """ids [B, T]; weights [B, T], the loss weight of a masked position, 0 where a position is never masked."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    lowest_ratio: float = 0.0
    """Mask ratios are drawn from lowest_ratio to 1."""
    hidden_from: NDArray[np.int32] | None = None
    """[B], the position from which on everything is masked."""


@dataclass(frozen=True)
class Example:
    """One sequence before it is padded with end tokens; `asked` holds loss weights, 0 for what stays visible."""

    ids: list[int]
    asked: Sequence[float]
    prompt: int


def stack(
    examples: list[Example], length: int, end: int, end_weight: float = END_WEIGHT
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Token ids and loss weights [B, T] of examples, then end tokens; T is `length` rounded up to a multiple of 8."""
    shape = len(examples), -(-length // 8) * 8
    ids, weights = np.full(shape, end, np.int32), np.full(shape, end_weight, np.float32)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        weights[row, : len(example.ids)] = example.asked
    return ids, weights


class Source:
    """Builds every kind of batch for one tokenizer, batch size and seed.

    questions: so many problems are asked at once, and answered on a canvas that is as many times longer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, size: int, seed: int, questions: int = 1):
        self.size, self.seed, self.questions = size, seed, questions
        self.canvas = questions * CANVAS
        self.encode = tokenizer.backend_tokenizer.encode_batch
        self.end: int = tokenizer.convert_tokens_to_ids(END)
        words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.keys = [i for i, word in enumerate(words) if word.startswith("Ġ") and len(word) > 3]
        self.space: int = tokenizer.convert_tokens_to_ids("Ġ")
        self.equals: int = tokenizer.convert_tokens_to_ids("=")
        self.digits: list[int] = tokenizer.convert_tokens_to_ids(list("0123456789"))
        self.opening: list[int] = tokenizer.convert_tokens_to_ids([BOS, header("user")])
        self.turn: list[int] = tokenizer.convert_tokens_to_ids([TURN, header("assistant")])
        self.sorted_pool: Callable[[int, int, Split], list[list[Example]]] = lru_cache(4)(self.draw_pool)

    def examples(self, problems: list[Problem]) -> list[Example]:
        questions = self.encode([p.question for p in problems])
        solutions = self.encode([p.solution for p in problems])
        out = []
        for question, solution in zip(questions, solutions, strict=True):
            prompt = [*self.opening, *question.ids, *self.turn]
            response = [*solution.ids, self.turn[0]]
            out.append(Example(prompt + response, [False] * len(prompt) + [True] * len(response), len(prompt)))
        return out

    def draw_pool(self, number: int, most_operations: int, split: Split) -> list[list[Example]]:
        count = POOL * self.size
        asked = range(number * count, (number + 1) * count)
        drawn = [page(i, self.questions, split, self.seed, most_operations) for i in asked]
        examples = sorted(self.examples(drawn), key=lambda example: len(example.ids))
        batches = [examples[i : i + self.size] for i in range(0, count, self.size)]
        random.Random(f"pool/{self.seed}/{number}").shuffle(batches)
        return batches

    def problems(self, index: int, most_operations: int = 4, split: Split = "train") -> Batch:
        """Problems of similar length; a quarter of the batches have the whole canvas of end tokens after them."""
        examples = self.sorted_pool(index // POOL, most_operations, split)[index % POOL]
        rng = random.Random(f"problems/{self.seed}/{index}")
        longest = max(len(example.ids) for example in examples)
        if rng.random() < 0.25:
            longest = max(longest, max(example.prompt for example in examples) + self.canvas)
        return Batch(*stack(examples, longest, self.end))

    def continued(self, index: int, most_operations: int = 4) -> Batch:
        """Problems of which the solution is shown up to one of its equal signs, and nearly all of the rest is masked.

        So a result is computed where it is needed, its length unknown and no copy of it in sight, as in decoding. The
        result and the token after it carry the loss.
        """
        pool = self.sorted_pool(index // POOL, most_operations, "train")
        rng = random.Random(f"continued/{self.seed}/{index}")
        examples = [self.cut(example, rng) for example in pool[index % POOL]]
        longest = max(len(example.ids) for example in examples)
        return Batch(*stack(examples, longest, self.end), lowest_ratio=0.9)

    def cut(self, example: Example, rng: random.Random) -> Example:
        """The example with one result to be computed next."""
        signs = [i for i in range(example.prompt, len(example.ids)) if example.ids[i] == self.equals]
        shown = rng.choice(signs) + 1
        end = shown
        while example.ids[end] in self.digits:
            end += 1
        weights = [0.0] * shown + [1.0] * (end + 1 - shown) + [END_WEIGHT] * (len(example.ids) - end - 1)
        return Example(example.ids, weights, example.prompt)

    def blocks(self, index: int, most_operations: int = 4) -> Batch:
        """Problems as a block decoder meets them: the solution up to a block, some of the block, nothing after it.

        Masks spread evenly over a solution hardly ever look like that.
        """
        pool = self.sorted_pool(index // POOL, most_operations, "train")
        return self.in_blocks(pool[index % POOL], random.Random(f"blocks/{self.seed}/{index}"))

    def in_blocks(self, whole: list[Example], rng: random.Random) -> Batch:
        examples, ends = [], []
        for example in whole:
            start = rng.randrange(example.prompt, len(example.ids))
            end = start + rng.choice(BLOCKS)
            weights = [0.0] * start + [1.0 if i < end else FAR_WEIGHT for i in range(start, len(example.ids))]
            examples.append(Example(example.ids, weights, example.prompt))
            ends.append(end)
        longest = max(example.prompt for example in examples) + self.canvas
        ids, weights_of = stack(examples, longest, self.end)
        return Batch(ids, weights_of, hidden_from=np.array(ends, np.int32))

    def worked(self, index: int, most_operations: int = 4) -> Batch:
        """Problems after five worked examples, a quarter as many as in other batches, which are that much shorter.

        Half of the batches are as block decoders meet them. In the others the examples have masks as well: so a
        sequence has six solutions to learn from.
        """
        rng = random.Random(f"worked/{self.seed}/{index}")
        questions = self.sorted_pool(index // POOL, most_operations, "train")[index % POOL][: self.size // 4]
        count = SHOTS * len(questions)
        drawn = [problem(rng.getrandbits(40), "train", self.seed, SHOT_OPERATIONS) for _ in range(count)]
        shots = self.examples(drawn)
        examples = [self.conversation([*shots[i :: len(questions)], last]) for i, last in enumerate(questions)]
        if rng.random() < 0.5:
            return self.in_blocks(examples, rng)
        longest = max(example.prompt for example in examples) + self.canvas
        return Batch(*stack(examples, longest, self.end))

    def conversation(self, turns: list[Example]) -> Example:
        """One text, which begins once; its prompt ends where the last answer begins."""
        first, *others = turns
        ids, asked = list(first.ids), list(first.asked)
        for turn in others:
            prompt = len(ids) + turn.prompt - 1
            ids += turn.ids[1:]
            asked += turn.asked[1:]
        return Example(ids, asked, prompt)

    def drills(self, index: int, chained: bool = False) -> Batch:
        """Equations from the solutions of training problems, their results masked.

        Each comes from another problem. Chained, the equations of a problem stay together: the next one mostly begins
        with the result of the one before, so a result can be copied. That teaches copying, and little arithmetic.
        """
        rng = random.Random(f"drills/{self.seed}/{index}")
        texts = []
        for _ in range(self.size):
            equations: list[str] = []
            while len(equations) < EQUATIONS:
                drawn = problem(rng.getrandbits(40), "train", self.seed).equations
                equations += drawn if chained else [rng.choice(drawn)]
            texts.append(" ".join(f"{equation}." for equation in equations[:EQUATIONS]))
        start = [*self.opening, *self.turn, self.space]
        examples = []
        for text, encoded in zip(texts, self.encode(texts), strict=True):
            asked = np.zeros(len(text), bool)
            for match in RESULT.finditer(text):
                asked[match.start(1) : match.end(1)] = True
            marks = [bool(asked[begin]) for begin, _ in encoded.offsets]
            examples.append(Example([*start, *encoded.ids], [False] * len(start) + marks, len(start)))
        longest = max(len(example.ids) for example in examples)
        return Batch(*stack(examples, longest, self.end, end_weight=0.0), lowest_ratio=0.8)

    def recall(self, index: int) -> Batch:
        """Pairs of a word and a word or number in the prompt, the same pairs in another order in the response.

        Copying from the prompt does not emerge from problems alone in any reasonable time; from this it does.
        """
        rng = random.Random(f"recall/{self.seed}/{index}")
        examples = []
        for _ in range(self.size):
            keys = rng.sample(self.keys, 2 * PAIRS)
            pairs = [[key, *self.value(rng, keys[PAIRS + i])] for i, key in enumerate(keys[:PAIRS])]
            shown = [token for pair in pairs for token in pair]
            rng.shuffle(pairs)
            prompt = [*self.opening, *shown, *self.turn]
            response = [*(token for pair in pairs for token in pair), self.turn[0]]
            examples.append(Example(prompt + response, [False] * len(prompt) + [True] * len(response), len(prompt)))
        longest = max(len(example.ids) for example in examples)
        return Batch(*stack(examples, longest, self.end))

    def value(self, rng: random.Random, word: int) -> list[int]:
        if rng.random() < 0.4:
            return [word]
        return [self.space, *(self.digits[int(digit)] for digit in str(rng.randint(2, 200)))]
