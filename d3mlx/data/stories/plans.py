"""Plans of stories: the facts with their numbers, the steps of the solution and the question, before any wording.

The value is a number of things that changes from fact to fact. Results are whole numbers from 2 to HIGHEST. A
difference can also be 1, and the last one can be 0.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from d3mlx.data.stories.scenes import (
    COMPARISONS,
    HIGHEST,
    KINDS,
    SCENE_SHARES,
    SCENES,
    Scene,
    Step,
)
from d3mlx.data.stories.words import CATEGORIES

LIMITS = {20: 0.35, 60: 0.3, HIGHEST: 0.35}
"""Limits of the numbers of a problem, and the share of each. Later numbers can be larger."""

DOZEN = 12
"""Largest divisor and number of groups."""

SMALL_ENDS = 0.1
"""Share of the losses that leave 0 or 1. Only the last step of a problem can leave 0."""

DISTRACTED = 0.15
"""Share of the stories with a sentence that changes nothing."""

Key = TypeVar("Key")


@dataclass(frozen=True)
class Fact:
    """A fact or event: its kind, and its numbers by placeholder."""

    kind: str
    numbers: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """A story before it is worded. ask: the kind of the question. category: of the things.

    distraction: the number in a distracting sentence. 0: the sentence has none. None: there is no such sentence.
    """

    scene: str
    category: str
    facts: tuple[Fact, ...]
    steps: tuple[Step, ...]
    ask: str
    distraction: int | None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the question. "twice" and "half" are 2."""
        drawn = [number for fact in self.facts for number in fact.numbers.values()]
        drawn += [2 for fact in self.facts if KINDS[fact.kind].rule.endswith("/2")] if self.scene != "plain" else []
        return (*drawn, *([self.distraction] if self.distraction else []))


def weighted(rng: random.Random, weights: Mapping[Key, float]) -> Key:
    return rng.choices(list(weights), list(weights.values()))[0]


class NoNumbersError(Exception):
    """The numbers that were drawn so far allow no continuation."""


class Draft:
    """A plan in the making. value: the present number. other: the number of a second owner."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.limit = weighted(rng, LIMITS)
        self.value, self.other = 0, 0
        self.facts: list[Fact] = []
        self.steps: list[Step] = []

    def between(self, low: int, high: int) -> int:
        if low > high:
            raise NoNumbersError
        return self.rng.randint(low, high)

    def step(self, left: int, sign: str, right: int, phrase: str) -> int:
        """Add a step and return its result."""
        step = Step(left, sign, right, phrase)
        if not 0 <= step.result <= HIGHEST:
            raise NoNumbersError
        self.steps.append(step)
        return step.result

    def factors(self, highest: int) -> tuple[int, int]:
        """Return two factors of a product up to `highest`: the first up to 12, the second up to 20."""
        first = self.between(2, min(DOZEN, highest // 2))
        return first, self.between(2, min(20, highest // first))

    def rate(self, highest: int) -> tuple[int, int]:
        """Return a number per day or hour, and the days or hours. Some are round numbers above 20."""
        times = self.between(2, min(DOZEN, highest // 2))
        if highest // times >= 20 and self.rng.random() < 0.4:
            return 10 * self.between(1, highest // times // 10), times
        return self.between(2, min(20, highest // times)), times

    def divisor(self) -> int:
        """Return a divisor of the value from 2 to 12 with a quotient of at least 2."""
        fitting = [number for number in range(2, DOZEN + 1) if self.value % number == 0 and self.value // number >= 2]
        if not fitting:
            raise NoNumbersError
        return self.rng.choice(fitting)

    def loss(self, is_last: bool) -> int:
        """Return a number to subtract from the value."""
        if self.value > 1 and self.rng.random() < SMALL_ENDS:
            return self.value - (0 if is_last and self.rng.random() < 0.5 else 1)
        return self.between(1 if self.rng.random() < 0.2 else 2, self.value - 2)

    def add(self, name: str, is_last: bool = False) -> None:
        """Add a fact of a kind with new numbers, and its steps. Raises NoNumbersError if no numbers fit."""
        kind = KINDS[name]
        numbers = self.numbers_of(kind.rule, is_last)
        self.facts.append(Fact(name, dict(zip("abcd", numbers, strict=False))))
        self.calculate(kind.rule, numbers, kind.phrases)

    def numbers_of(self, rule: str, is_last: bool) -> tuple[int, ...]:
        """Return numbers for a rule."""
        room = HIGHEST - self.value
        if rule == "a*b+c*d":
            return (*self.factors(max(24, self.limit) // 2), *self.factors(max(24, self.limit) // 2))
        if rule in ("a*b", "rate", "second a*b", "second rate"):
            return (self.factors if rule.endswith("a*b") else self.rate)(max(24, self.limit))
        if rule in ("+a*b", "+rate", "-a*b"):
            highest = self.value - (0 if is_last else 1) if rule == "-a*b" else room
            highest = min(highest, max(24, self.limit))
            return (self.rate if rule == "+rate" else self.factors)(highest)
        if rule in ("/2", "x/2"):
            if self.value % 2 or self.value < 4:
                raise NoNumbersError
            return ()
        if rule == "a+b":
            return self.between(2, self.limit // 2), self.between(2, self.limit // 2)
        if rule in ("a", "second"):
            return (self.between(3, self.limit),)
        return (self.number_of(rule, room, is_last),)

    def number_of(self, rule: str, room: int, is_last: bool) -> int:
        """Return the number of a rule with one number."""
        if rule == "-a":
            return self.loss(is_last)
        if rule == "/a":
            return self.divisor()
        if rule == "x*a":
            return self.between(2, min(10, HIGHEST // max(self.value, 1)))
        if rule == "x-a":
            return self.between(2, self.value - 2)
        if rule == "a-":
            return self.between(self.value + 1, min(HIGHEST, self.value + self.limit))
        return self.between(1 if self.rng.random() < 0.1 else 2, min(room, self.limit))

    def calculate(self, rule: str, numbers: tuple[int, ...], phrases: tuple[str, ...]) -> None:
        """Add the steps of a rule, and set the value, or the other value."""
        value = self.value
        if rule == "a":
            self.value = numbers[0]
        elif rule == "second":
            self.other = numbers[0]
        elif rule == "a+b":
            self.value = self.step(numbers[0], "+", numbers[1], phrases[0])
        elif rule in ("a*b", "rate"):
            self.value = self.step(numbers[0], "*", numbers[1], phrases[0])
        elif rule.startswith("second "):
            self.other = self.step(numbers[0], "*", numbers[1], phrases[0])
        elif rule == "a*b+c*d":
            first = self.step(numbers[0], "*", numbers[1], phrases[0])
            second = self.step(numbers[2], "*", numbers[3], phrases[1])
            self.value = self.step(first, "+", second, phrases[2])
        elif rule in ("+a*b", "-a*b", "+rate"):
            self.value = self.step(value, rule[0], self.step(numbers[0], "*", numbers[1], phrases[0]), phrases[1])
        elif rule == "a-":
            self.value = self.step(numbers[0], "-", value, phrases[0])
        elif rule[0] == "x":
            self.other = self.step(value, rule[1], numbers[0] if numbers else 2, phrases[0])
        else:
            self.value = self.step(value, rule[0], numbers[0] if numbers else 2, phrases[0])


def plan(rng: random.Random, operations: int) -> Plan:
    """Return a plan with this number of operations."""
    while True:
        name = weighted(rng, SCENE_SHARES)
        draft, category = Draft(rng), rng.choice(list(CATEGORIES))
        try:
            ask = (
                plain(draft, operations)
                if name == "plain"
                else (
                    owners(draft, category, operations)
                    if name == "owners"
                    else events(draft, scene_of(name, category), operations)
                )
            )
        except NoNumbersError:
            continue
        distracted = name != "plain" and rng.random() < DISTRACTED
        distraction = rng.choice((0, rng.randint(2, 60), rng.randint(2, 60))) if distracted else None
        return Plan(name, category, tuple(draft.facts), tuple(draft.steps), ask, distraction)


def scene_of(name: str, category: str) -> Scene:
    """Return a scene, with the events and facts that fit the things."""
    if name != "things":
        return SCENES[name]
    scene, things = SCENES[name], CATEGORIES[category]
    if things.containers:
        gains, losses = ("gain groups",), ("half", "lose groups")
        return Scene(scene.openings, things.gains + gains, things.losses * 2 + losses, scene.closings, scene.asks)
    openings = {kind: weight for kind, weight in scene.openings.items() if kind in ("own", "two days")}
    closings = {kind: weight for kind, weight in scene.closings.items() if kind in ("", "need")}
    return Scene(openings, things.gains, (*things.losses, "half"), closings, scene.asks)


def events(draft: Draft, scene: Scene, operations: int) -> str:
    """Add an opening, up to three events and a closing fact to a draft. Return the kind of the question."""
    opening = weighted(draft.rng, scene.openings)
    closing = weighted(draft.rng, scene.closings) if scene.closings else ""
    left = operations - KINDS[opening].operations - (KINDS[closing].operations if closing else 0)
    chosen: list[str] = []
    while left > 0:
        fitting = [kind for kind in (*scene.gains, *scene.losses) if KINDS[kind].operations <= left]
        if not fitting or len(chosen) == 3:
            raise NoNumbersError
        side = [kind for kind in fitting if (kind in scene.gains) == (draft.rng.random() < 0.45)]
        chosen.append(draft.rng.choice(side or fitting))
        left -= KINDS[chosen[-1]].operations
    if left < 0 or has_clash(chosen, closing):
        raise NoNumbersError
    draft.add(opening)
    for i, kind in enumerate(chosen):
        draft.add(kind, is_last=i == len(chosen) - 1 and not closing)
    if closing:
        if draft.value < 2:
            raise NoNumbersError
        draft.add(closing)
        return closing
    if not chosen:
        return scene.asks[2]
    return scene.asks[0 if chosen[-1] in scene.gains else 1]


def has_clash(chosen: list[str], closing: str) -> bool:
    """Return whether two events have prices of one thing, or whether an event is repeated."""
    priced = [kind for kind in (*chosen, closing) if kind in ("buy each", "sell each", "afford", "more kinds")]
    moves = ("get on", "get off", "come in", "leave")
    single = [kind for kind in chosen if kind not in moves]
    return len(priced) > 1 or len(set(single)) < len(single)


def owners(draft: Draft, category: str, operations: int) -> str:
    """Add facts about two owners. Return the kind of the question."""
    scene, things = SCENES["owners"], CATEGORIES[category]
    opening = weighted(draft.rng, scene.openings) if things.containers else "own"
    draft.add(opening)
    relation = weighted(draft.rng, COMPARISONS)
    if opening != "own" and draft.rng.random() < 0.4:
        relation = f"second {opening}"
    if draft.value < 2:
        raise NoNumbersError
    draft.add(relation)
    asks = scene.closings if things.containers else {"both": 0.6, "difference": 0.2, "second": 0.2}
    ask = weighted(draft.rng, asks)
    if ask == "second" and relation not in ("times", "half of", "more than", "fewer than"):
        raise NoNumbersError
    if ask == "difference":
        if relation in ("more than", "fewer than") or draft.value <= draft.other:
            raise NoNumbersError
        draft.step(draft.value, "-", draft.other, "difference")
    elif ask != "second":
        draft.value = draft.step(draft.value, "+", draft.other, "total")
        if ask.endswith(" both"):
            draft.add(ask)
            ask = ask.removesuffix(" both")
    if len(draft.steps) != operations:
        raise NoNumbersError
    return ask


def plain(draft: Draft, operations: int) -> str:
    """Add one calculation without a story. Return its sign."""
    if operations > 1:
        raise NoNumbersError
    sign = draft.rng.choice("++--**/")
    if sign == "+":
        left, right = draft.between(2, draft.limit - 1), draft.between(2, draft.limit)
        if left + right > HIGHEST:
            raise NoNumbersError
    elif sign == "-":
        left = draft.between(4, draft.limit)
        right = draft.between(2, left - 2)
    else:
        left, right = draft.factors(max(24, draft.limit))
        left, right = (left, right) if sign == "*" else (left * right, left)
    draft.facts.append(Fact("plain", {"a": left, "b": right}))
    draft.step(left, sign, right, "plain")
    return sign
