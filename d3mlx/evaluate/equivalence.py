"""Final answers of mathematics: found in a text, normalised as Minerva does, compared as text and as numbers.

Two answers are equivalent if their normal forms are the same text, or if both are arithmetic or algebra of the small
grammar in `Reader` and agree at several points, which is how a difference that simplifies to 0 shows without
computer algebra. Lists, tuples and intervals are compared part by part.
"""

from __future__ import annotations

import cmath
import math
import re
from fractions import Fraction

UNITS = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "sue", "points", "feet"),
    *("minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students"),
    *("childrentickets", "multiples"),
)
"""Words that Minerva takes out of an answer (Lewkowycz et al. 2022, appendix D), in its order."""

NOISE = (
    *("\\ldots", "\\dots", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}"),
    *("\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"'),
)
ALIASES = {
    **{"dfrac": "frac", "tfrac": "frac", "\\left": "", "\\right": "", "\\!": "", "\\,": "", "\\%": "", "%": ""},
    **{"\\{": "{", "\\}": "}"},
}
SEEDS = (0.7390851, 1.3247180, 2.2360680)
"""Each gives all letters values; at a few unrelated points only equal expressions agree."""

BRACKETS = {"(": ")", "{": "}", "[": "]"}

LONGEST = 400
"""Characters of an answer that is still read as an expression."""


def last_boxed(text: str) -> str | None:
    """What the last \\boxed{...} or \\fbox{...} holds, braces matched; None where there is none."""
    starts = [match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]
    for start in reversed(starts):
        depth = 1
        for i in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[start:i]
    bare = re.findall(r"\\boxed ([^\s$]+)", text)
    return bare[-1] if bare else None


def normalise(answer: str) -> str:
    """Minerva's normal form: no units, spaces, dollar signs or text commands, short TeX written out."""
    x = answer.split("=")[-1]
    # Before the units: the one called ft would bite into \left.
    for name, plain in ALIASES.items():
        x = x.replace(name, plain)
    for article in ("an ", "a "):
        x = x.replace(article, "")
    x = x.replace(".$", "$").replace("\\$", "").replace("\\ ", "").replace(" ", "").replace("mbox", "text")
    x = x.replace(",\\text{and}", ",").replace("\\text{and}", ",").replace("\\text{m}", "\\text{}")
    for removed in (*UNITS, *NOISE):
        x = x.replace(removed, "")
    if in_math := re.search(r"\$(.*?)\$", x, re.DOTALL):
        x = in_math[1]
    for command in ("text", "textbf", "mathrm", "overline"):
        x = re.sub(rf"\\{command}\{{(.*?)\}}", r"\1", x)
    x = re.sub(r"\\boxed\{(.*)\}", r"\1", x)
    x = re.sub(r"frac([^{\\])(.)", r"frac{\1}{\2}", x)
    x = re.sub(r"sqrt([^{\[])", r"sqrt{\1}", x)
    x = x.replace("$", "").removesuffix(".")
    return x.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", x) else x


def equivalent(answer: str, wanted: str) -> bool:
    """True if two answers, as they stand in TeX, mean the same."""
    left, right = normalise(answer), normalise(wanted)
    if left == right:
        return left != ""
    parts, others = parted(left), parted(right)
    if len(parts) == 1 == len(others):
        return same_value(left, right)
    alike = brackets(left) == brackets(right) and len(parts) == len(others)
    return alike and all(map(same_value, parts, others))


def brackets(x: str) -> tuple[str, str]:
    """The brackets around a tuple or an interval, which may differ; two empty texts where there are none."""
    enclosed = x[:1] in tuple(BRACKETS) and x[-1:] in tuple(BRACKETS.values())
    return (x[0], x[-1]) if enclosed else ("", "")


def parted(x: str) -> list[str]:
    """The parts of a list, tuple or interval at its outer commas; [x] itself where it has none."""
    inside = x[1:-1] if brackets(x)[0] else x
    parts, depth = [""], 0
    for c in inside:
        depth += (c in BRACKETS) - (c in BRACKETS.values())
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts if len(parts) > 1 else [x]


def same_value(left: str, right: str) -> bool:
    if left == right:
        return True
    exact = rational(left), rational(right)
    if None not in exact:
        return exact[0] == exact[1]
    for seed in SEEDS:
        a, b = value(left, seed), value(right, seed)
        if a is None or b is None or not cmath.isclose(a, b, rel_tol=1e-10, abs_tol=1e-12):
            return False
    return True


def rational(x: str) -> Fraction | None:
    """Return the exact value of a decimal or of a fraction of whole numbers; None for anything else."""
    match = re.fullmatch(r"(-?)(?:\\frac\{(-?\d+)\}\{(\d+)\}|(\d+)/(\d+)|(\d+\.?\d*|\.\d+))", x)
    if not match or len(x) > LONGEST:
        return None
    sign, top, bottom, left, right, decimal = match.groups()
    if decimal:
        size = Fraction(decimal)
    else:
        over = int(bottom or right)
        if over == 0:
            return None
        size = Fraction(int(top or left), over)
    return -size if sign else size


def value(x: str, seed: float) -> complex | None:
    """The value of an expression in TeX, its letters standing for numbers; None for what `Reader` cannot read.

    Of letters at most two may stand side by side: more are a word.
    """
    if len(x) > LONGEST or re.search(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", x):
        return None
    try:
        reader = Reader(x, seed)
        result = reader.sum()
        return result if reader.at == len(reader.tokens) and cmath.isfinite(result) else None
    except (ValueError, ZeroDivisionError, OverflowError, IndexError, RecursionError):
        return None


TOKEN = re.compile(r"\\[a-zA-Z]+|\d+\.?\d*|\.\d+|[a-zA-Z]|[-+*/^(){}\[\]]")
PRODUCT = {"*", "\\cdot", "\\times", "/", "\\div"}


class Reader:
    """Recursive descent over the tokens of one expression. Raises ValueError for what is not in the grammar:

    sums, products (written or implied), quotients, powers, mixed numbers, \\frac, \\sqrt with an index, \\pi, i,
    brackets, decimals, single letters.
    """

    def __init__(self, text: str, seed: float):
        self.tokens = TOKEN.findall(text)
        if "".join(self.tokens) != text:
            raise ValueError("a character that is in no token")
        self.seed = seed
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self) -> complex:
        total = self.product()
        while self.peek() in ("+", "-"):
            total += self.product() if self.take() == "+" else -self.product()
        return total

    def product(self) -> complex:
        if self.peek() in ("-", "+"):
            return -self.product() if self.take() == "-" else self.product()
        total = self.power()
        while (token := self.peek()) and token not in ("+", "-", ")", "]", "}"):
            if token in PRODUCT:
                divides = self.take() in ("/", "\\div")
                factor = -self.power() if self.peek() == "-" and self.take() else self.power()
                total = total / factor if divides else total * factor
            elif self.tokens[self.at - 1][-1].isdigit() and token == "\\frac":
                total += self.power()  # 1\frac{1}{2} is a mixed number
            elif token[0].isdigit() or token[0] == ".":
                raise ValueError("a number after a factor")
            else:
                total *= self.power()
        return total

    def power(self) -> complex:
        base = self.atom()
        if self.peek() != "^":
            return base
        self.take()
        exponent = self.atom()
        if abs(exponent) > 1000:
            raise ValueError("an exponent beyond reading")
        return complex(base**exponent)

    def atom(self) -> complex:
        token = self.take()
        if token in BRACKETS:
            inside = self.sum()
            if self.take() != BRACKETS[token]:
                raise ValueError("brackets that do not match")
            return inside
        if token == "\\frac":
            return self.atom() / self.atom()
        if token == "\\sqrt":
            degree = self.atom() if self.peek() == "[" else 2
            return complex(self.atom() ** (1 / degree))
        if token == "\\pi":
            return math.pi
        if token == "i":
            return 1j
        if token.isalpha():
            return math.sin(ord(token) * self.seed) + 2
        return float(token)
