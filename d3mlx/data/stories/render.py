"""Rendering of wordings: people and pronouns, verbs, numbers and nouns.

The language of wordings is described in `wordings`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from d3mlx.data.stories.words import plural

PAST = {
    "have": "had", "buy": "bought", "find": "found", "get": "got", "eat": "ate", "sell": "sold", "give": "gave",
    "lose": "lost", "break": "broke", "make": "made", "take": "took", "bring": "brought", "send": "sent", "put": "put",
    "go": "went", "come": "came", "leave": "left", "ride": "rode", "pay": "paid", "spend": "spent", "cost": "cost",
    "win": "won", "drive": "drove", "run": "ran", "fly": "flew", "read": "read", "write": "wrote", "swim": "swam",
    "keep": "kept", "do": "did", "split": "split", "sew": "sewed", "let": "let", "fit": "fit", "sit": "sat",
    "see": "saw", "begin": "began", "cut": "cut", "spread": "spread", "meet": "met", "are": "were",
}  # fmt: skip
"""Past forms of irregular verbs."""

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"
)  # fmt: skip
PLACEHOLDER = re.compile(r"\{([a-z]\w*)('s|\.o)?((?: \w+)*)\}|\[(\w+)(?:/(\w))?\]|<([^>]+)>")
NUMBERS = "abcde"


def third_person(verb: str) -> str:
    """Return the form of a verb after "he"."""
    if verb in ("have", "are", "be"):
        return {"have": "has"}.get(verb, "is")
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeou" else f"{verb}s"


def past(verb: str) -> str:
    """Return the past form of a verb."""
    if verb in PAST:
        return PAST[verb]
    if verb.endswith("e"):
        return f"{verb}d"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ied"
    return f"{verb}{verb[-1]}ed" if verb in ("drop", "plan", "step") else f"{verb}ed"


@dataclass(frozen=True)
class Person:
    """A person, or a couple. first and later: the words at the first and other mentions.

    short and pronoun: "he" and "him". They are empty if the person has none.
    """

    first: str
    later: str
    short: str = ""
    pronoun: str = ""
    plural: bool = False

    def verb(self, verb: str, tense: str) -> str:
        """Return the form of a verb after this person."""
        if verb == "be":
            if tense == "past":
                return "were" if self.plural else "was"
            return "am" if self.first == "I" else "are" if self.plural else "is"
        if tense == "past":
            return past(verb)
        return verb if self.plural or self.first == "I" else third_person(verb)


@dataclass
class Teller:
    """Writer of one story. words: placeholders that are words. people: by placeholder. tense: of the facts.

    verbs: verbs that stand for DAILY, FIND, LOSE and GO. spelled: write numbers from 2 to 12 as words.
    """

    rng: random.Random
    words: dict[str, str]
    people: dict[str, Person]
    verbs: dict[str, str]
    tense: str = "present"
    spelled: bool = False
    mentioned: set[str] = field(default_factory=set)

    def number(self, value: int, noun: str = "") -> str:
        """Return a number, with the noun that it counts if there is one."""
        if self.spelled and value == 12 and noun and not noun.startswith("of ") and self.rng.random() < 0.5:
            text = "a dozen"
        else:
            text = NUMBER_WORDS[value] if self.spelled and value < len(NUMBER_WORDS) else str(value)
        return f"{text} {noun}" if noun else text

    def noun(self, phrase: str, value: int) -> str:
        """Return the noun phrase after a number: its last word is a placeholder or a plural."""
        *before, last = phrase.split()
        counted = value == 1 and "of" not in before
        if last == "times":
            return last
        word = self.words.get(f"{last}1" if counted else last, last)
        return " ".join([*before, word])

    def mention(self, key: str, form: str) -> str:
        """Return the mention of a person as a subject, an object (".o") or a possessive ("'s").

        A pronoun is used only if no other person can be meant.
        """
        person, others, is_new = self.people[key], self.mentioned - {key}, key not in self.mentioned
        self.mentioned.add(key)
        name = person.first if is_new else person.later
        always = person.first == "I" or (person.plural and not is_new)
        if form == "'s":
            own = {"I": "my", "she": "her", "he": "his", "they": "their"}.get(person.short, "")
            is_clear = always or not (is_new or others or self.chance(0.5))
            return own if own and is_clear else f"{name}'s"
        if form == ".o":
            is_clear = always or (not is_new and key == "n" and others <= {"m"} and self.chance(0.4))
            return person.pronoun if person.pronoun and is_clear else name
        return person.short if person.short and not (is_new or others) and self.chance(0.5) else name

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def verb(self, verb: str, agreement: str | None) -> str:
        """Return a verb that agrees with the person n, or as `agreement` says."""
        base = self.verbs.get(verb, verb)
        if agreement == "0":
            return base
        if agreement == "t":
            return past(base) if self.tense == "past" else base
        if agreement in ("x", "m") and self.tense == "present":
            return third_person(base)
        if agreement in ("x", "m"):
            return "was" if base == "be" else past(base)
        return self.people["n"].verb(base, self.tense)

    def clause(self, text: str, direct: bool) -> str:
        """Return subject and verb of a question, for example "does Tom have" if `direct`, or "Tom has"."""
        key, *adverbs, verb = text.split()
        base = self.verbs.get(verb, verb)
        if key in self.people:
            person, subject = self.people[key], self.mention(key, "")
        else:
            person, subject = Person("it", "it"), f"each {self.words[key]}"
        parts = [person.verb("do", self.tense), subject, *adverbs, base]
        return " ".join(parts if direct else [subject, *adverbs, person.verb(base, self.tense)])

    def fill(self, text: str, numbers: dict[str, int], direct: bool = True) -> str:
        """Return a wording with all of its placeholders filled."""

        def part(match: re.Match[str]) -> str:
            name, form, noun, verb, agreement, clause = match.groups()
            if clause:
                return self.clause(clause, direct)
            if verb:
                return self.verb(verb, agreement)
            if name in NUMBERS and name in numbers:
                return self.number_of(numbers[name], noun.strip())
            if name in self.people:
                return self.mention(name, form or "")
            return self.words[name]

        return PLACEHOLDER.sub(part, text)

    def number_of(self, value: int, noun: str) -> str:
        """Return a number with its noun. Twice is 2 times."""
        if noun == "times" and value == 2:
            return "twice"
        return self.number(value, self.noun(noun, value) if noun else "")


def capital(text: str) -> str:
    """Return text with a capital first letter."""
    return text[:1].upper() + text[1:]


def nouns(key: str, singular: str) -> dict[str, str]:
    """Return the placeholders of a noun."""
    return {key: plural(singular), f"{key}1": singular}
