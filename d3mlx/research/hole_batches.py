"""Training batches of solutions with holes, which teach to fill holes and to end their text."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from d3mlx.data.stories.stories import problem
from d3mlx.research.batches import END_WEIGHT, FAR_WEIGHT, POOL, Batch, Example, Source, stack

SIZES = (16, 32, 64)
"""Numbers of masks of a hole of free length, as `d3mlx infill` tries them."""

ANYWHERE, LOWEST_RATIO = 0.3, 0.4
"""Share of the batches with masks anywhere in the holes, and the lowest share of masks in them."""

NEXT_WEIGHT = 4.0
"""Loss weight of the token that a decoder can know next. That of other tokens is at most 1."""


class Holes:
    """Builder of batches with holes from a source of problems."""

    def __init__(self, source: Source):
        self.source = source
        self.pool: Callable[[int], list[list[Example]]] = lru_cache(4)(self.draw_pool)

    def batch(self, step: int) -> Batch:
        """Return solved problems of similar length, with one or two holes in each solution.

        In most batches every hole is visible from the left up to a random position, as decoders fill it. The token at
        this position, which may be the end, has the largest loss weight.
        """
        examples = self.pool(step // POOL)[step % POOL]
        longest = max(len(example.ids) for example in examples)
        ids, weights = stack(examples, longest, self.source.end, end_weight=0.0)
        rng = np.random.default_rng([self.source.seed, step])
        if rng.random() < ANYWHERE:
            return Batch(ids, weights, lowest_ratio=LOWEST_RATIO)
        for row in weights:
            edges = np.flatnonzero(np.diff(row > 0, prepend=False, append=False)).tolist()
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                following = start + rng.choice(np.flatnonzero(row[start:end] == 1))
                row[start:following], row[following + 1 : end] = 0.0, FAR_WEIGHT
                row[following] = NEXT_WEIGHT
        return Batch(ids, weights, lowest_ratio=1.0)

    def draw_pool(self, number: int) -> list[list[Example]]:
        """Return POOL batches. A quarter of their examples have no chat template."""
        rng = random.Random(f"holes/{self.source.seed}/{number}")
        size, count = self.source.size, POOL * self.source.size
        problems = [problem(i, seed=self.source.seed) for i in range(number * count, (number + 1) * count)]
        solved = self.source.examples(problems)
        for i in range(count // 4):
            texts = [problems[i].question, f" {problems[i].solution}"]
            question, solution = (encoded.ids for encoded in self.source.encode(texts))
            solved[i] = Example([*question, *solution], [], len(question))
        examples = sorted((self.with_holes(example, rng) for example in solved), key=lambda each: len(each.ids))
        batches = [examples[i : i + size] for i in range(0, count, size)]
        rng.shuffle(batches)
        return batches

    def with_holes(self, example: Example, rng: random.Random) -> Example:
        """Return the example with holes: their text, then end tokens. Only positions of holes have a weight."""
        ids, weights = list(example.ids[: example.prompt]), [0.0] * example.prompt
        # The last token ends the turn, or is the period of the solution.
        position, last = example.prompt, len(example.ids) - 1
        for left in reversed(range(rng.choice((1, 1, 1, 2)))):
            # Each further hole needs a token, and one before it.
            room = last - position - 2 * left
            length = min(rng.randint(1, rng.choice((12, 12, 30))), room)
            start = position + rng.randint(0, room - length)
            text, loss = self.hole(example.ids[start : start + length], rng)
            position, before = start + length + 1, example.ids[position:start]
            ids += [*before, *text, example.ids[position - 1]]
            weights += [*[0.0] * len(before), *loss, 0.0]
        return Example(ids + example.ids[position:], weights + [0.0] * (len(example.ids) - position), example.prompt)

    def hole(self, text: list[int], rng: random.Random) -> tuple[list[int], list[float]]:
        """Return the ids and loss weights of a hole. Some holes have no room for an end token, or not for all text."""
        fitting, kind = [size for size in SIZES if size > len(text)], rng.random()
        if kind < 0.1:
            return text, [1.0] * len(text)
        if len(text) > SIZES[0] and kind < 0.3:
            return text[: SIZES[0]], [1.0] * SIZES[0]
        slack = (fitting[0] if kind < 0.8 else rng.choice(fitting)) - len(text)
        return [*text, *[self.source.end] * slack], [1.0] * (len(text) + 1) + [END_WEIGHT] * (slack - 1)
