"""Values of expressions in TeX: arithmetic, and algebra with single letters."""

from __future__ import annotations

import cmath
import math
import re
from fractions import Fraction

SEEDS = (0.7390851, 1.3247180, 2.2360680)
"""Seeds of the points: each gives a value to every letter. Only equal expressions agree at all of them."""

BRACKETS = {"(": ")", "{": "}", "[": "]"}

LONGEST = 400
"""Largest number of characters of an answer that is read as an expression."""


def same_value(left: str, right: str) -> bool:
    """Return whether two expressions have the same value. False for empty ones."""
    if left == right:
        return left != ""
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
    """Return the value of an expression in TeX, with numbers for its letters. None if `Reader` cannot read it.

    Three or more letters in a row are a word, not an expression.
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
    """Recursive-descent parser that computes the value of an expression. Raises ValueError for invalid expressions.

    The grammar has sums, products (written or implied), quotients, powers, mixed numbers, \\frac, \\sqrt with an index,
    \\pi, i, brackets, decimals and single letters.
    """

    def __init__(self, text: str, seed: float):
        self.tokens = TOKEN.findall(text)
        if "".join(self.tokens) != text.replace(" ", ""):
            raise ValueError("unknown character")
        self.seed = seed
        self.at = 0

    def peek(self) -> str:
        """Return the next token, or "" at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        """Return the next token and move past it."""
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self) -> complex:
        """Read a sum."""
        total = self.product()
        while self.peek() in ("+", "-"):
            total += self.product() if self.take() == "+" else -self.product()
        return total

    def product(self) -> complex:
        """Read a product."""
        if self.peek() in ("-", "+"):
            return -self.product() if self.take() == "-" else self.product()
        total = self.power()
        while (token := self.peek()) and token not in ("+", "-", ")", "]", "}"):
            if token in PRODUCT:
                divides = self.take() in ("/", "\\div")
                factor = -self.power() if self.peek() == "-" and self.take() else self.power()
                total = total / factor if divides else total * factor
            elif token[0].isdigit() or token[0] == ".":
                raise ValueError("number after a factor")
            else:
                total *= self.power()
        return total

    def power(self) -> complex:
        """Read a power."""
        base = self.atom()
        if self.peek() != "^":
            return base
        self.take()
        exponent = self.atom()
        if abs(exponent) > 1000:
            raise ValueError("exponent too large")
        return complex(base**exponent)

    def atom(self) -> complex:
        """Read a number, a letter, a command or brackets."""
        token = self.take()
        if token in BRACKETS:
            inside = self.sum()
            if self.take() != BRACKETS[token]:
                raise ValueError("unbalanced brackets")
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
