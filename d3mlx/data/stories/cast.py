"""The words of one story: people, things, containers and places."""

from __future__ import annotations

import random
from dataclasses import dataclass

from d3mlx.data.stories.render import Person, nouns
from d3mlx.data.stories.words import (
    CATEGORIES,
    DISTANCES,
    HE,
    HE_ROLES,
    KIN,
    LENGTHS,
    MADE_UP,
    MONEY,
    NAMES,
    OUTDOORS,
    RECEIVERS,
    ROLES,
    ROOMS,
    SHE,
    SHE_ROLES,
    SHOPS,
    VEHICLES,
    VOLUMES,
    WEEKDAYS,
    WEIGHTS,
    Words,
    made_up,
    plural,
    words_of,
)

MADE_UP_UNKNOWN = 0.4
"""Chance that a held-out name or thing is made up."""

OTHER_PEOPLE = {"role": 0.06, "kin": 0.04, "I": 0.06, "couple": 0.03}
"""Shares of the stories whose main person has no name, or is a couple. The names of couples are known or held out."""

STUFF = {
    "rope ribbon wire string fabric": (LENGTHS, ("roll", "piece", "bundle")),
    "water milk juice oil paint soup": (VOLUMES, ("tank", "bottle", "can", "barrel", "bucket")),
    "rice flour sugar sand corn salt": (WEIGHTS, ("sack", "bag", "box", "bin")),
}
"""Materials by units and containers."""

OBJECTS = {"she": "her", "he": "him", "": ""}
"""Pronouns after a verb, by pronoun."""

WAYS = {"trip": ("drive", "ride", "walk", "travel", "run", "cycle"), "reading": ("read",)}
"""Verbs for GO in each scene."""


@dataclass(frozen=True)
class Cast:
    """Words and people by placeholder, and the verbs that stand for DAILY, FIND, LOSE and GO."""

    words: dict[str, str]
    people: dict[str, Person]
    verbs: dict[str, str]


def name_of(rng: random.Random, kind: Words) -> tuple[str, str]:
    """Return a name and its pronoun, which is empty if the person may be a woman or a man."""
    if rng.random() < (MADE_UP if kind == "known" else MADE_UP_UNKNOWN):
        return made_up(rng, kind).capitalize(), ""
    name = rng.choice(words_of(NAMES, kind))
    return name, "she" if name in SHE else "he" if name in HE else ""


def person(name: str, pronoun: str) -> Person:
    """Return a person with a name."""
    return Person(name, name, pronoun, OBJECTS[pronoun])


def main_person(rng: random.Random, kind: Words) -> Person:
    """Return the main person of a story. In stories with held-out words it has a name."""
    named = person(*name_of(rng, kind))
    form = rng.choices(["name", *OTHER_PEOPLE], [1 - sum(OTHER_PEOPLE.values()), *OTHER_PEOPLE.values()])[0]
    if form == "couple":
        both = f"{named.first} and {name_of(rng, kind)[0]}"
        return Person(both, "they", "they", "them", plural=True)
    if form == "name" or kind == "unknown":
        return named
    if form == "I":
        return Person("I", "I", "I", "me")
    if form == "kin":
        relative, pronoun = rng.choice(list(KIN.items()))
        return Person(relative, relative, pronoun, OBJECTS[pronoun])
    role = rng.choice([*ROLES, *SHE_ROLES, *HE_ROLES])
    article = "an" if role[0] in "aeio" else "a"
    pronoun = "she" if role in SHE_ROLES else "he" if role in HE_ROLES else ""
    return Person(f"{article} {role}", f"the {role}", pronoun, OBJECTS[pronoun])


def thing_of(rng: random.Random, category: str, kind: Words) -> str:
    """Return a singular thing of a category."""
    real = words_of(CATEGORIES[category].things, kind)
    if not real or rng.random() < (MADE_UP if kind == "known" else MADE_UP_UNKNOWN):
        return made_up(rng, kind)
    return rng.choice(real)


def cast(rng: random.Random, scene: str, category: str, kind: Words) -> Cast:
    """Return the words of a story. kind: whether names and things are known or held out."""
    words = {"shop": rng.choice(SHOPS), "outdoors": rng.choice(OUTDOORS), "weekday": rng.choice(WEEKDAYS)}
    things = [thing_of(rng, category, kind)]
    while len(things) < 3:
        other = thing_of(rng, rng.choice(("toys", "clothes", "fragile", "goods", "books")), kind)
        things += [other] if other not in things else []
    for key, thing in zip("tsz", things, strict=True):
        words |= nouns(key, thing)
    containers = [word for word in CATEGORIES[category].containers if word != things[0]]
    for key, container in zip("pq", rng.sample(containers, 2) if containers else (), strict=False):
        words |= nouns(key, container)
    words |= nouns("f", rng.choice(RECEIVERS)) | nouns("u", rng.choice(MONEY))
    words |= scenery(rng, scene)
    people = {"n": main_person(rng, kind)}
    while len(people) < 3:
        other_person = person(*name_of(rng, kind))
        if not any(other_person.first in each.first for each in people.values()):
            people["m" if "m" not in people else "k"] = other_person
    if scene == "owners" and people["n"].first == "I":
        people["n"] = people.pop("k")
        people["k"] = person(*name_of(rng, kind))
    return Cast(words, people, verbs_of(rng, scene, category))


def scenery(rng: random.Random, scene: str) -> dict[str, str]:
    """Return the words for units, materials, vehicles and rooms of a scene."""
    if scene in ("trip", "reading"):
        return nouns("u", rng.choice(DISTANCES) if scene == "trip" else "page") | {
            "g": "way" if scene == "trip" else "book"
        }
    if scene == "measure":
        materials = rng.choice(list(STUFF))
        units, containers = STUFF[materials]
        container = rng.choice(containers)
        return {"w": rng.choice(materials.split()), "i": f"a {container}", "j": plural(container)} | nouns(
            "u", rng.choice(units)
        )
    if scene == "vehicle":
        vehicle = rng.choice(VEHICLES)
        return {"v": vehicle, "there": f"on the {vehicle}"}
    if scene == "room":
        room = rng.choice(ROOMS)
        return {"v": room, "there": f"in the {room}"}
    return {}


def verbs_of(rng: random.Random, scene: str, category: str) -> dict[str, str]:
    """Return the verbs that fit the things."""
    things = CATEGORIES[category]
    losing = [verb for verb in things.losses if verb not in ("give", "break")] or ["lose"]
    return {
        "DAILY": things.verb,
        "FIND": rng.choice((things.verb, "get")),
        "LOSE": rng.choice(losing),
        "GO": rng.choice(WAYS.get(scene, ("go",))),
    }
