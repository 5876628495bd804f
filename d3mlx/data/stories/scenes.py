"""Kinds of facts with their arithmetic, and scenes: which facts and questions can be in one story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from d3mlx.data.stories.amounts import MONEY, OWNERS
from d3mlx.data.stories.measures import MEASURES, PEOPLE, TRIPS
from d3mlx.data.stories.wordings import CLOSINGS, GAINS, LOSSES, OPENINGS, Bank

HIGHEST = 200
"""Largest number of a question or a solution."""


@dataclass(frozen=True)
class Step:
    """One operation: its equation without the result, its result, and the key of its phrases."""

    left: int
    sign: str
    right: int
    phrase: str

    @property
    def result(self) -> int:
        left, right = self.left, self.right
        return {"+": left + right, "-": left - right, "*": left * right, "/": left // max(right, 1)}[self.sign]

    @property
    def equation(self) -> str:
        return f"{self.left}{self.sign}{self.right}={self.result}"


@dataclass(frozen=True)
class Kind:
    """A kind of fact. rule: how its numbers a, b, c, d change the value. phrases: of its steps."""

    rule: str
    phrases: tuple[str, ...]
    bank: Bank

    @property
    def operations(self) -> int:
        return len(self.phrases)


KINDS = {
    "own": Kind("a", (), OPENINGS["own"]),
    "groups": Kind("a*b", ("groups",), OPENINGS["groups"]),
    "two groups": Kind("a*b+c*d", ("groups", "more groups", "total"), OPENINGS["two groups"]),
    "daily": Kind("rate", ("daily",), OPENINGS["daily"]),
    "two days": Kind("a+b", ("total",), OPENINGS["two days"]),
    **{name: Kind("+a", ("have",), GAINS[name]) for name in ("buy", "find", "get", "make", "pick")},
    "gain groups": Kind("+a*b", ("groups", "have"), GAINS["gain groups"]),
    **{name: Kind("-a", ("left",), LOSSES[name]) for name in ("eat", "give", "sell", "lose", "break", "use")},
    "half": Kind("/2", ("half",), LOSSES["half"]),
    "lose groups": Kind("-a*b", ("given", "left"), LOSSES["lose groups"]),
    "share": Kind("/a", ("share",), CLOSINGS["share"]),
    "pack": Kind("/a", ("pack",), CLOSINGS["pack"]),
    "fill": Kind("/a", ("fill",), CLOSINGS["fill"]),
    "need": Kind("a-", ("need",), CLOSINGS["need"]),
    "money": Kind("a", (), MONEY["money"]),
    "earn": Kind("rate", ("earn",), MONEY["earn"]),
    "receive money": Kind("+a", ("money",), MONEY["receive money"]),
    "spend": Kind("-a", ("change",), MONEY["spend"]),
    "buy each": Kind("-a*b", ("cost", "change"), MONEY["buy each"]),
    "sell each": Kind("+a*b", ("sold", "money"), MONEY["sell each"]),
    "afford": Kind("/a", ("afford",), MONEY["afford"]),
    "price": Kind("a-", ("price",), MONEY["price"]),
    "cost": Kind("a*b", ("cost",), MONEY["buy each"]),
    "more kinds": Kind("+a*b", ("more cost", "total cost"), MONEY["more kinds"]),
    "riders": Kind("a", (), PEOPLE["riders"]),
    "get on": Kind("+a", ("in",), PEOPLE["get on"]),
    "get off": Kind("-a", ("out",), PEOPLE["get off"]),
    "visitors": Kind("a", (), PEOPLE["visitors"]),
    "rows": Kind("a*b", ("rows",), PEOPLE["rows"]),
    "come in": Kind("+a", ("in",), PEOPLE["come in"]),
    "leave": Kind("-a", ("out",), PEOPLE["leave"]),
    "teams": Kind("/a", ("teams",), PEOPLE["teams"]),
    "amount": Kind("a", (), MEASURES["amount"]),
    "amounts": Kind("a*b", ("amounts",), MEASURES["amounts"]),
    "add": Kind("+a", ("amount",), MEASURES["add"]),
    "take": Kind("-a", ("remain",), MEASURES["take"]),
    "parts": Kind("/a", ("parts",), MEASURES["parts"]),
    "speed": Kind("rate", ("way",), TRIPS["speed"]),
    "pages": Kind("rate", ("way",), TRIPS["pages"]),
    "further": Kind("+a", ("way total",), TRIPS["further"]),
    "second leg": Kind("+rate", ("more way", "way total"), TRIPS["second leg"]),
    "goal": Kind("a-", ("rest",), TRIPS["goal"]),
    "second": Kind("second", (), OWNERS["second"]),
    "more than": Kind("x+a", ("second",), OWNERS["more than"]),
    "fewer than": Kind("x-a", ("second",), OWNERS["fewer than"]),
    "times": Kind("x*a", ("second",), OWNERS["times"]),
    "half of": Kind("x/2", ("second",), OWNERS["half of"]),
    "second groups": Kind("second a*b", ("second",), OWNERS["second groups"]),
    "second daily": Kind("second rate", ("second",), OWNERS["second daily"]),
    "share both": Kind("/a", ("share",), OWNERS["share both"]),
    "pack both": Kind("/a", ("pack",), OWNERS["pack both"]),
}


@dataclass(frozen=True)
class Scene:
    """Facts that fit together. Each mapping has the weight of every kind.

    asks: the questions without a closing fact after a gain, after a loss and after no event.
    """

    openings: Mapping[str, float]
    gains: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    closings: Mapping[str, float] = field(default_factory=dict)
    asks: tuple[str, str, str] = ("now", "left", "all")


def even(*names: str) -> dict[str, float]:
    return dict.fromkeys(names, 1.0)


SCENES = {
    "things": Scene(
        {"own": 0.5, "groups": 0.25, "two groups": 0.08, "daily": 0.09, "two days": 0.08},
        closings={"": 0.5, "share": 0.16, "pack": 0.1, "fill": 0.08, "need": 0.16},
    ),
    "money": Scene(
        {"money": 0.7, "earn": 0.3},
        ("receive money", "receive money", "sell each"),
        ("spend", "spend", "buy each"),
        {"": 0.6, "afford": 0.2, "price": 0.2},
        ("money", "money", "earned"),
    ),
    "costs": Scene({"cost": 1.0}, ("more kinds",), asks=("cost", "cost", "cost")),
    "vehicle": Scene({"riders": 1.0}, ("get on",), ("get off",), asks=("people", "people", "people")),
    "room": Scene(
        {"visitors": 0.6, "rows": 0.4}, ("come in",), ("leave",), {"": 0.7, "teams": 0.3}, ("people", "people", "rows")
    ),
    "measure": Scene(
        {"amount": 0.6, "amounts": 0.4}, ("add",), ("take",), {"": 0.65, "parts": 0.35}, ("amount", "remain", "amount")
    ),
    "trip": Scene({"speed": 1.0}, ("further", "second leg"), (), {"": 0.6, "goal": 0.4}, ("way", "way", "way")),
    "reading": Scene({"pages": 1.0}, ("further",), (), {"": 0.5, "goal": 0.5}, ("way", "way", "way")),
    "owners": Scene(
        {"own": 0.6, "groups": 0.25, "daily": 0.15},
        ("second", "more than", "fewer than", "times", "half of", "second groups", "second daily"),
        closings={"both": 0.45, "difference": 0.15, "second": 0.2, "share both": 0.1, "pack both": 0.1},
    ),
    "plain": Scene({}),
}

SCENE_SHARES = {
    "things": 0.47,
    "owners": 0.17,
    "money": 0.1,
    "costs": 0.03,
    "vehicle": 0.04,
    "room": 0.04,
    "measure": 0.05,
    "trip": 0.03,
    "reading": 0.02,
    "plain": 0.05,
}

COMPARISONS = {"second": 0.35, "more than": 0.2, "fewer than": 0.15, "times": 0.2, "half of": 0.1}
"""Weights of the second fact about two owners. After groups and days, the second owner may have the same."""
