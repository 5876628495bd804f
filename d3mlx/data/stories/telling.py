"""The question of a problem in words: choice of wordings, sentences, and ways to ask."""

from __future__ import annotations

import random
import re

from d3mlx.data.stories.cast import Cast
from d3mlx.data.stories.plans import Plan
from d3mlx.data.stories.questions import ASKED, DISTRACTIONS, QUESTIONS, STYLES
from d3mlx.data.stories.render import Teller, capital
from d3mlx.data.stories.scenes import KINDS
from d3mlx.data.stories.solutions import PLAIN
from d3mlx.data.stories.words import CATEGORIES, Words

PAST_SHARE = 0.4
SPELLED_SHARE = 0.1
"""Share of the stories with number words up to twelve."""

STYLE_SHARES = {"direct": 0.72, "if before": 0.08, "if after": 0.1, "find": 0.03, "calculate": 0.03, "so": 0.04}
"""Shares of the known ways to ask."""

UNKNOWN_SHARE = 0.7
"""Share of the facts with an unknown wording, and of unknown ways to ask, in problems with unknown wordings."""

GROUPED = ("groups", "two groups", "gain groups", "second groups", "rows", "buy each", "sell each", "amounts")
"""Kinds after which a number without a noun could count containers, groups or other things."""

STATES = ("have", "own", "need", "keep", "owe", "lack")
"""Verbs of questions about the present or the past."""

NAMED = re.compile(r"[ {][tu]\}|people|passengers|\{[rh]\}")
INVERTED = re.compile(r"\b(?:does|do|is|are there|can|must)\b|are/t\] there")
"""Question wordings with the verb before the subject."""

LEADS = ("", "", "", "Then ", "Later ", "After that, ", "Next, ")


class Telling:
    """One question. wordings: known, or unknown where possible."""

    def __init__(self, rng: random.Random, plan: Plan, cast: Cast, wordings: Words):
        self.rng, self.plan, self.wordings = rng, plan, wordings
        self.unknown_facts = 0
        self.style = self.way_to_ask()
        tense = "past" if rng.random() < PAST_SHARE and not self.style.startswith("if") else "present"
        self.teller = Teller(rng, dict(cast.words), cast.people, cast.verbs, tense, rng.random() < SPELLED_SHARE)

    def way_to_ask(self) -> str:
        if self.wordings == "unknown" and self.rng.random() < UNKNOWN_SHARE:
            return self.rng.choice(STYLES.unknown)
        return self.rng.choices(list(STYLE_SHARES), list(STYLE_SHARES.values()))[0]

    def question(self) -> str | None:
        """Return the question. None if no wording fits."""
        if self.plan.scene == "plain":
            return self.calculation()
        facts = [self.wording(i) for i in range(len(self.plan.facts))]
        questions = self.asking()
        if None in facts or not questions or (self.wordings == "unknown" and not self.unknown_facts):
            return None
        text = self.told([fact for fact in facts if fact is not None], self.rng.choice(questions))
        text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
        return re.sub(r"(?<=[.?] )[a-z]", lambda letter: letter[0].upper(), text)

    def calculation(self) -> str:
        """Return a question without a story."""
        bank = PLAIN[self.plan.ask]
        text = self.rng.choice(bank.unknown if self.wordings == "unknown" else bank.known)
        filled = self.teller.fill(text, dict(self.plan.facts[0].numbers))
        mark = "" if filled.endswith((".", "?")) or self.rng.random() < 0.1 else "?"
        return (filled if self.rng.random() < 0.15 else capital(filled)) + mark

    def wording(self, i: int) -> str | None:
        """Return a wording of a fact. None if none fits."""
        fact = self.plan.facts[i]
        bank = KINDS[fact.kind].bank
        known = [text for text in bank.known if self.fits(text, i)]
        unknown = [text for text in bank.unknown if self.fits(text, i)]
        if self.wordings == "unknown" and unknown and (not known or self.rng.random() < UNKNOWN_SHARE):
            self.unknown_facts += 1
            return self.rng.choice(unknown)
        return self.rng.choice(known) if known else None

    def fits(self, text: str, i: int) -> bool:
        """Return whether a wording of fact `i` has one reading after the facts before it."""
        fact, before = self.plan.facts[i], self.plan.facts[:i]
        if self.style.startswith("if") and re.search(r"[.,] |^But|^Then|^Later|^After|^Soon|^It\b", text):
            return False
        if 1 in fact.numbers.values() and re.search(r"another|they|them up|\[let\]|come/t|get/t", text):
            return False
        if not CATEGORIES[self.plan.category].containers and re.search(r"\{p1?\}", text):
            return False
        if any(each.kind in GROUPED for each in before) and not NAMED.search(text):
            return False
        # Directly after another event, "them" could be its things.
        return i < 2 or "of them" not in text

    def asking(self) -> list[str]:
        """Return the questions that have one reading. In an unknown way to ask, they can be known."""
        bank = QUESTIONS[self.plan.ask]
        pools = {"known": bank.known, "unknown": bank.unknown}
        allowed = [*bank.known, *bank.unknown] if self.style in STYLES.unknown else pools[self.wordings]
        return [text for text in allowed if self.can_ask(text)]

    def can_ask(self, text: str) -> bool:
        """Return whether a question has one reading in this story."""
        if self.style == "if before" and re.search(r"\bthat\b|\bit\b|\{there\}|\bthey\b|\bthem\b|their", text):
            return False
        if self.style in ASKED and self.style != "so" and INVERTED.search(text):
            return False
        if len(self.plan.facts) > 1 and re.search(r"\b(?:is that|does that make)\b", text) and "total" not in text:
            return False
        if KINDS[self.plan.facts[-1].kind].rule.startswith("+") and re.search("remain|leave", text):
            return False
        if self.plan.ask == "cost" and len(self.plan.facts) > 1 and not re.search("total|together", text):
            return False
        is_grouped = any(fact.kind in GROUPED for fact in self.plan.facts)
        return bool(NAMED.search(text) or "much" in text or not (is_grouped or self.plan.distraction is not None))

    def rest(self, i: int) -> str:
        """Return the words for all of the things before fact `i`: "r"."""
        thing = "it" if self.plan.scene == "measure" else "them"
        noun = f"the {self.teller.words['w' if thing == 'it' else 't']}"
        before = self.plan.facts[:i]
        rules = [KINDS[fact.kind].rule for fact in before]
        if rules and rules[-1][0] in "-/":
            return self.rng.choice(("the rest", f"the remaining {noun[4:]}"))
        if len(rules) > 1 or any(fact.kind in GROUPED for fact in before):
            return self.rng.choice((f"all {noun}", noun))
        return self.rng.choice((thing, f"all of {thing}", noun, f"all {noun}"))

    def halved(self, i: int) -> str:
        """Return the words for the things of which fact `i` takes half."""
        noun = f"the {self.teller.words['t']}"
        rule = KINDS[self.plan.facts[i - 1].kind].rule if i else ""
        if rule.startswith("-"):
            return "the rest"
        return noun if rule.startswith("+") or self.plan.facts[0].kind in GROUPED else self.rng.choice((noun, "them"))

    def fill(self, text: str, i: int) -> str:
        """Return the text of fact `i`."""
        self.teller.words |= {"r": self.rest(i), "h": self.halved(i)}
        return self.teller.fill(text, dict(self.plan.facts[i].numbers))

    def told(self, facts: list[str], asked: str) -> str:
        """Return the facts and the question as one text."""
        # In one sentence with all facts, there is no position before the question.
        is_early = self.plan.distraction is not None and (self.style.startswith("if") or self.rng.random() < 0.6)
        early = [self.distraction()] if is_early else []
        if self.style == "if before":
            question = self.asked(asked, direct=True)
            return " ".join([*early, f"{capital(question)} if {self.joined(facts)}?"])
        if self.style == "if after":
            story = self.joined(facts)
            return " ".join([*early, f"If {story}, {self.asked(asked, direct=True)}?"])
        sentences = self.sentences(facts)
        if self.plan.distraction is not None and not early:
            sentences.append(self.distraction())
        if self.style == "direct" or self.style == "so":
            question = self.asked(asked, direct=True)
            last = f"So {question}?" if self.style == "so" else f"{capital(question)}?"
        else:
            last = ASKED[self.style].format(clause=self.asked(asked, direct=False))
        return " ".join([*early, *sentences, last])

    def distraction(self) -> str:
        """Return a sentence that changes nothing."""
        pool = [*DISTRACTIONS.known, *(DISTRACTIONS.unknown if self.wordings == "unknown" else ())]
        person = {"vehicle": "{n}", "room": "{n}", "owners": "{k}"}.get(self.plan.scene, "-")
        numbered = bool(self.plan.distraction)
        fitting = [text for text in pool if person not in text and ("{e" in text) == numbered]
        return capital(self.teller.fill(self.rng.choice(fitting), {"e": self.plan.distraction or 0}))

    def joined(self, facts: list[str]) -> str:
        """Return facts as clauses of one sentence: "Tom has 5 apples and eats 2"."""
        clauses: list[str] = []
        for i, text in enumerate(facts):
            continues = text.startswith("[") and i > 0 and facts[i - 1].startswith("[")
            start = "" if continues or not text.startswith("[") else f"{self.teller.mention('n', '')} "
            lower = text[0].lower() + text[1:] if text[0].isupper() else text
            clauses.append(start + self.fill(lower.rstrip("."), i))
        return listed(clauses)

    def sentences(self, facts: list[str]) -> list[str]:
        """Return facts as sentences. Some that continue the one before are in the same sentence."""
        out: list[str] = []
        i = 0
        while i < len(facts):
            if not facts[i].startswith("["):
                out.append(capital(self.fill(facts[i], i)))
                i += 1
                continue
            lead = self.rng.choice(LEADS) if i else ""
            clauses = [f"{lead}{self.teller.mention('n', '')} {self.fill(facts[i], i)}"]
            i += 1
            while i < len(facts) and facts[i].startswith("[") and self.rng.random() < 0.6:
                clauses.append(self.fill(facts[i], i))
                i += 1
            joiner = self.rng.choice((" and ", " and ", " and then ", ", then "))
            out.append(f"{capital(listed(clauses, joiner))}.")
        return out

    def asked(self, text: str, direct: bool) -> str:
        """Return the question as a main clause, or as a clause after "find"."""
        clause = re.search(r"<[^>]* (\w+)>", text)
        is_state = not clause or clause[1] in STATES
        is_end = re.search(r"left|in the end|still|after|need|lack|keep", text)
        if " now" in text or (is_state and not (is_end and self.rng.random() < 0.5)):
            # "How many did Tom have?" could be about the beginning.
            self.teller.tense = "present"
        return self.teller.fill(text, {}, direct)


def listed(clauses: list[str], joiner: str = " and ") -> str:
    """Return clauses in one sentence."""
    *others, last = clauses
    return f"{', '.join(others)}{joiner}{last}" if others else last
