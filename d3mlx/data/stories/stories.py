"""Arithmetic stories of one to four steps with worked solutions, composed from facts, in three splits.

A problem depends only on its arguments. The sorted tuple of the numbers in its question belongs to exactly one split,
so no training problem has exactly the numbers of a held-out problem. In the held-out split, names and things, or
wordings, can also be held out.
"""

from __future__ import annotations

import random
import re
from typing import get_args

from d3mlx.data.stories.cast import Cast, cast
from d3mlx.data.stories.plans import Plan, plan
from d3mlx.data.stories.problem import Problem, Split, split_of, together
from d3mlx.data.stories.render import Teller
from d3mlx.data.stories.scenes import SCENES, Step
from d3mlx.data.stories.solutions import ANSWER, PHRASES
from d3mlx.data.stories.telling import Telling
from d3mlx.data.stories.words import Words

LONGEST = 63
"""Largest number of tokens of a solution. With the end of the turn it fits a canvas of 64."""

SHOT_OPERATIONS = 2
"""Largest number of operations of a worked example, so that three examples, a question and a canvas fit the context."""

OPERATION_SHARES = {1: 0.25, 2: 0.3, 3: 0.27, 4: 0.18}
"""Share of problems by number of operations."""

PIECES = re.compile(r" ?[A-Za-z]+|\d|.", re.DOTALL)
FIXED_WORDS = frozenset(re.findall(r"[A-Za-z]+", " ".join([ANSWER, *(p for each in PHRASES.values() for p in each)])))
"""Words of solutions that are one token."""


def equations(index: int, seed: int = 0) -> tuple[str, ...]:
    """Return the equations of a training problem that is not worded. This is faster than `problem`."""
    rng = random.Random(f"equations/{seed}/{index}")
    operations = rng.choices(list(OPERATION_SHARES), list(OPERATION_SHARES.values()))[0]
    while True:
        drawn = plan(rng, operations)
        if split_of(drawn.numbers) == "train":
            return tuple(step.equation for step in drawn.steps)


def problem(
    index: int,
    split: Split = "train",
    seed: int = 0,
    most_operations: int = 4,
    words: Words = "known",
    wordings: Words = "known",
) -> Problem:
    """Return the problem at `index` of a split, with at most `most_operations` operations.

    words: if unknown, all names and things are held out. wordings: if unknown, the wordings of the question and of at
    least one fact are held out. Both are known in training and validation.
    """
    if split not in get_args(Split):
        raise ValueError(f"Unknown split {split!r}. Choose {', '.join(get_args(Split))}.")
    if split != "held-out" and "unknown" in (words, wordings):
        raise ValueError(f"Split {split!r} has only known words and wordings. Choose held-out.")
    rng = random.Random(f"{seed}/{split}/{index}/{most_operations}/{words}/{wordings}")
    counts = [count for count in OPERATION_SHARES if count <= most_operations]
    operations = rng.choices(counts, [OPERATION_SHARES[count] for count in counts])[0]
    while True:
        drawn = plan(rng, operations)
        if split_of(drawn.numbers) != split:
            continue
        chosen = cast(rng, drawn.scene, drawn.category, words)
        question = Telling(rng, drawn, chosen, wordings).question()
        solution = solved(drawn, chosen)
        if question is not None and solution is not None:
            return Problem(
                question=question,
                solution=solution,
                answer=str(drawn.steps[-1].result),
                numbers=drawn.numbers,
                equations=tuple(step.equation for step in drawn.steps),
                scenes=(list(SCENES).index(drawn.scene),),
            )


def solved(drawn: Plan, chosen: Cast) -> str | None:
    """Return the solution with one sentence per step. None if it can be longer than LONGEST tokens."""
    *steps, last = phrased(drawn)
    sentences = [*(sentence(step, chosen) for step in steps), sentence(last, chosen, named=True)]
    text = " ".join([*sentences, ANSWER.format(answer=last.result)])
    return text if tokens_at_most(text) <= LONGEST else None


def phrased(drawn: Plan) -> list[Step]:
    """Return the steps. The second product of containers is about the other containers."""
    steps, seen = [], False
    for step in drawn.steps:
        again = step.phrase == "groups" and seen
        seen = seen or step.phrase == "groups"
        steps.append(Step(step.left, step.sign, step.right, "more groups") if again else step)
    return steps


def sentence(step: Step, chosen: Cast, named: bool = False) -> str:
    """Return the sentence for a step. named: end it with what it counts."""
    text, noun = PHRASES[step.phrase]
    if step.result == 1:  # The noun is singular.
        noun = "person" if noun == "people" else noun.replace("}", "1}")
    text = f"{text} {noun}." if named and noun else f"{text}."
    teller = Teller(random.Random(0), chosen.words, chosen.people, chosen.verbs)
    return teller.fill(text.replace("{=}", step.equation), {})


def tokens_at_most(text: str) -> int:
    """Return a high estimate of the number of tokens. Other words have at most three tokens per four letters."""
    pieces = [piece.strip() for piece in PIECES.findall(text)]
    return sum(1 if len(piece) < 2 or piece in FIXED_WORDS else (3 * len(piece) + 3) // 4 for piece in pieces)


def page(
    index: int,
    questions: int,
    split: Split = "train",
    seed: int = 0,
    most_operations: int = 4,
    words: Words = "known",
    wordings: Words = "known",
) -> Problem:
    """Return the `index`-th group of `questions` problems of a split, as one problem."""
    first = index * questions
    return together(
        [problem(i, split, seed, most_operations, words, wordings) for i in range(first, first + questions)]
    )
