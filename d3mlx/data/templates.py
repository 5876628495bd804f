"""Templates of the generated word problems: questions, and three phrasings of each step of the solution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Range = tuple[int, int]
Phrasings = tuple[str, str, str]

NAMES = ("Anna", "Ben", "Cara", "Dan", "Ella", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kim", "Leo", "Mia", "Noah")
OBJECTS = (
    "apples", "books", "cards", "coins", "cookies", "eggs", "flowers", "marbles", "pencils", "shells", "stamps",
    "stickers",
)  # fmt: skip
CONTAINERS = ("bags", "baskets", "boxes", "jars", "packs")

SMALL: Range = (2, 9)
DOZEN: Range = (2, 12)
TENS: Range = (5, 60)
HUNDRED: Range = (5, 99)
LARGE: Range = (10, 180)

# A phrasing has at most three words and the equation, so that a solution of four steps fits into 64 tokens.
HAVE: Phrasings = ("Now {n} has {eq}.", "That makes {eq} {o}.", "So there are {eq}.")
LEFT: Phrasings = ("Then {eq} are left.", "That leaves {eq} {o}.", "So {n} keeps {eq}.")
PACKED: Phrasings = ("The {p} hold {eq}.", "Packed are {eq} {o}.", "The {p} give {eq}.")
MORE_PACKED: Phrasings = ("The others hold {eq}.", "Then come {eq} {o}.", "The others give {eq}.")
TOTAL: Phrasings = ("Together that is {eq}.", "In total {eq} {o}.", "The sum is {eq}.")
SHARE: Phrasings = ("Each friend gets {eq}.", "A share is {eq}.", "Everyone gets {eq} {o}.")
SPREAD: Phrasings = ("Each one holds {eq}.", "So each gets {eq}.", "One holds {eq} {o}.")
NEED: Phrasings = ("{n} still needs {eq}.", "The rest is {eq}.", "Missing are {eq} {o}.")
OTHER: Phrasings = ("{m} has {eq}.", "So {m} has {eq}.", "For {m} {eq} {o}.")
GIVEN: Phrasings = ("The friends get {eq}.", "{n} gives {eq} {o}.", "That takes {eq}.")
MADE: Phrasings = ("{n} makes {eq}.", "The days give {eq}.", "Work brings {eq} {o}.")
OTHER_MADE: Phrasings = ("{m} makes {eq}.", "Then {m} adds {eq}.", "More work brings {eq}.")
BOARD: Phrasings = ("Now {eq} people ride.", "The bus has {eq}.", "That makes {eq} people.")
ALIGHT: Phrasings = ("Then {eq} people stay.", "That leaves {eq}.", "So {eq} remain.")


@dataclass(frozen=True)
class Step:
    """An operation on two values: numbers of the question (a, b, ...) or results of earlier steps (r1, r2, ...)."""

    left: str
    sign: str
    right: str
    phrasings: Phrasings


@dataclass(frozen=True)
class Template:
    """A question with placeholders, the steps of its solution, and the range of each number."""

    question: str
    steps: tuple[Step, ...]
    ranges: Mapping[str, Range] = field(default_factory=dict)


def step(expression: str, phrasings: Phrasings) -> Step:
    """Return the step for an expression such as "a + b"."""
    left, sign, right = expression.split()
    return Step(left, sign, right, phrasings)


TEMPLATES = (
    # One operation
    Template(
        "{n} has {a} {o} and buys {b} more. How many {o} does {n} have now?",
        (step("a + b", HAVE),),
        {"a": LARGE, "b": HUNDRED},
    ),
    Template(
        "{n} had {a} {o} and gave {b} to {m}. How many {o} are left?",
        (step("a - b", LEFT),),
        {"a": (20, 200), "b": LARGE},
    ),
    Template(
        "{n} has {a} {p} with {b} {o} in each. How many {o} are there?",
        (step("a * b", PACKED),),
        {"a": DOZEN, "b": (2, 20)},
    ),
    Template(
        "{n} shares {a} {o} equally among {b} friends. How many {o} does each friend get?",
        (step("a / b", SHARE),),
        {"a": (6, 180), "b": SMALL},
    ),
    Template(
        "{n} needs {a} {o} and has only {b}. How many more {o} does {n} need?",
        (step("a - b", NEED),),
        {"a": (20, 200), "b": LARGE},
    ),
    Template(
        "On Monday {n} found {a} {o}, on Tuesday {b} more. How many {o} is that in total?",
        (step("a + b", TOTAL),),
        {"a": LARGE, "b": LARGE},
    ),
    # Two operations
    Template(
        "{n} has {a} {o}, buys {b} more and gives {c} to {m}. How many {o} are left?",
        (step("a + b", HAVE), step("r1 - c", LEFT)),
        {"a": HUNDRED, "b": HUNDRED, "c": HUNDRED},
    ),
    Template(
        "{n} had {a} {o} and buys {b} {p} with {c} {o} in each. How many {o} does {n} have now?",
        (step("b * c", PACKED), step("a + r1", HAVE)),
        {"a": HUNDRED, "b": SMALL, "c": DOZEN},
    ),
    Template(
        "{n} has {a} {o} and {m} has {b}. They put them equally into {c} {p}. How many {o} does each hold?",
        (step("a + b", TOTAL), step("r1 / c", SPREAD)),
        {"a": HUNDRED, "b": HUNDRED, "c": SMALL},
    ),
    Template(
        "{n} has {a} {p} with {b} {o} in each and loses {c} {o}. How many {o} are left?",
        (step("a * b", PACKED), step("r1 - c", LEFT)),
        {"a": SMALL, "b": DOZEN, "c": TENS},
    ),
    Template(
        "{n} had {a} {o}, lost {b} and found {c}. How many {o} does {n} have now?",
        (step("a - b", LEFT), step("r1 + c", HAVE)),
        {"a": LARGE, "b": HUNDRED, "c": HUNDRED},
    ),
    Template(
        "{n} had {a} {o}, lost {b} and shares the rest among {c} friends. How many {o} does each friend get?",
        (step("a - b", LEFT), step("r1 / c", SHARE)),
        {"a": LARGE, "b": HUNDRED, "c": SMALL},
    ),
    Template(
        "{n} has {a} {o}. {m} has {b} times as many. How many {o} do they have together?",
        (step("a * b", OTHER), step("a + r1", TOTAL)),
        {"a": (2, 30), "b": SMALL},
    ),
    # Three operations
    Template(
        "{n} has {a} {p} with {b} {o} in each and {c} {p} with {d}. How many {o} are there?",
        (step("a * b", PACKED), step("c * d", MORE_PACKED), step("r1 + r2", TOTAL)),
        {"a": SMALL, "b": DOZEN, "c": SMALL, "d": DOZEN},
    ),
    Template(
        "{n} had {a} {o}, bought {b}, gave {c} to {m} and lost {d}. How many {o} are left?",
        (step("a + b", HAVE), step("r1 - c", LEFT), step("r2 - d", LEFT)),
        {"a": HUNDRED, "b": HUNDRED, "c": TENS, "d": TENS},
    ),
    Template(
        "{n} has {a} {p} with {b} {o} in each, keeps {c} {o} and shares the rest among {d} friends. "
        "How many {o} does each friend get?",
        (step("a * b", PACKED), step("r1 - c", LEFT), step("r2 / d", SHARE)),
        {"a": SMALL, "b": DOZEN, "c": TENS, "d": SMALL},
    ),
    Template(
        "A bus has {a} people. At one stop {b} get on and {c} get off. Then {d} get on. How many people are there now?",
        (step("a + b", BOARD), step("r1 - c", ALIGHT), step("r2 + d", BOARD)),
        {"a": HUNDRED, "b": TENS, "c": TENS, "d": TENS},
    ),
    Template(
        "{n} has {a} {o} and {m} has {b} more than {n}. They share them all among {c} friends. "
        "How many {o} does each friend get?",
        (step("a + b", OTHER), step("a + r1", TOTAL), step("r2 / c", SHARE)),
        {"a": TENS, "b": TENS, "c": SMALL},
    ),
    Template(
        "{n} makes {a} {o} on each of {b} days, gives {c} to {m} and buys {d}. How many {o} does {n} have now?",
        (step("a * b", MADE), step("r1 - c", LEFT), step("r2 + d", HAVE)),
        {"a": DOZEN, "b": SMALL, "c": TENS, "d": HUNDRED},
    ),
    Template(
        "{n} had {a} {o} and gave {b} to each of {c} friends and {d} to {m}. How many {o} are left?",
        (step("b * c", GIVEN), step("a - r1", LEFT), step("r2 - d", LEFT)),
        {"a": LARGE, "b": DOZEN, "c": SMALL, "d": TENS},
    ),
    # Four operations
    Template(
        "{n} has {a} {p} with {b} {o} in each and {c} {p} with {d}, and gives {e} {o} to {m}. How many {o} are left?",
        (step("a * b", PACKED), step("c * d", MORE_PACKED), step("r1 + r2", TOTAL), step("r3 - e", LEFT)),
        {"a": SMALL, "b": DOZEN, "c": SMALL, "d": DOZEN, "e": TENS},
    ),
    Template(
        "{n} had {a} {o}, found {b}, bought {c}, lost {d} and puts the rest equally into {e} {p}. "
        "How many {o} does each hold?",
        (step("a + b", HAVE), step("r1 + c", HAVE), step("r2 - d", LEFT), step("r3 / e", SPREAD)),
        {"a": TENS, "b": TENS, "c": TENS, "d": TENS, "e": SMALL},
    ),
    Template(
        "{n} had {a} {o}, bought {b} {p} with {c} {o} in each, gave {d} to {m} and found {e}. "
        "How many {o} does {n} have now?",
        (step("b * c", PACKED), step("a + r1", HAVE), step("r2 - d", LEFT), step("r3 + e", HAVE)),
        {"a": HUNDRED, "b": SMALL, "c": DOZEN, "d": TENS, "e": TENS},
    ),
    Template(
        "A bus has {a} people. At one stop {b} get on and {c} get off. Then {d} get on and {e} get off. "
        "How many people are there now?",
        (step("a + b", BOARD), step("r1 - c", ALIGHT), step("r2 + d", BOARD), step("r3 - e", ALIGHT)),
        {"a": HUNDRED, "b": TENS, "c": TENS, "d": TENS, "e": TENS},
    ),
    Template(
        "{n} makes {a} {o} on each of {b} days and {m} makes {c} on each of {d} days. "
        "They share them all among {e} friends. How many {o} does each friend get?",
        (step("a * b", MADE), step("c * d", OTHER_MADE), step("r1 + r2", TOTAL), step("r3 / e", SHARE)),
        {"a": DOZEN, "b": SMALL, "c": DOZEN, "d": SMALL, "e": SMALL},
    ),
)

ANSWER = "The answer is {answer}."

PIECES = r" ?[A-Za-z]+|\d|\n\n| ?[^\sA-Za-z\d]|\s"
"""Pattern of a token: a word with the space before it, or a single digit, so that arithmetic works on digits."""
