"""Final answers in mathematics: extraction from a text, and comparison as text and as numbers.

Two expressions have the same value if they agree at several points (see `expressions`). This shows without computer
algebra that their difference is 0.

`published` compares Minerva's normal forms. Minerva deletes articles and units inside words, and all text before an
equal sign, so some different answers become equal. `equivalent` keeps words, relations and different units. In doubt
it refuses a correct answer instead of accepting a wrong one.
"""

from __future__ import annotations

import cmath
import re
from collections.abc import Callable

from d3mlx.evaluate.expressions import BRACKETS, LONGEST, SEEDS, same_value, value

UNITS = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "sue", "points", "feet"),
    *("minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students"),
    *("childrentickets", "multiples"),
)
"""Words that Minerva removes from an answer, in its order (Lewkowycz et al. 2022, appendix D)."""

NOISE = (
    *("\\ldots", "\\dots", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}"),
    *("\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"'),
)
ALIASES = {
    **{"dfrac": "frac", "tfrac": "frac", "\\left": "", "\\right": "", "\\!": "", "\\,": "", "\\%": "", "%": ""},
    **{"\\{": "{", "\\}": "}"},
}
MOST_PARTS = 40
"""Largest number of parts of an answer that are compared."""

SIGNS = {
    **{"−": "-", "–": "-", "°": "^\\circ ", "√": "\\sqrt "},
    **{"×": "\\times ", "·": "\\cdot ", "÷": "\\div ", "π": "\\pi ", "∞": "\\infty "},
    **{"±": "\\pm ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "∪": "\\cup ", "∈": "\\in "},
    **{"<=": "\\le ", ">=": "\\ge ", "!=": "\\ne ", "**": "^", "\u00a0": " ", "\n": " ", "\t": " ", "~": " "},
}
LETTER_UNITS = {"m": "meter", "g": "gram", "s": "second", "h": "hour"}
NAME = (
    r"(?:[a-zA-Z](?:_\w+|'+)?|[A-Z]{2,3}|m?\\angle ?[A-Z]+|\\[a-z]+|\|[A-Z]+\||[a-z][a-z ]{3,}"
    r"|[A-Zf-hpq]\([^()=]*\)|\([a-z](?: ?, ?[a-z])+\))"
)
"""Left side of a relation that only names the value on the right."""

SPELLINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![a-zA-Z])", ""),
    (r"\\[cdt]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\([lgn])eq(?:slant)?(?![a-zA-Z])", r"\\\1e "),
    (r"(?<=\d)(?:\{,\}|,?\\!|\\[, ])(?=\d{3}(?!\d))", ""),
    (r"\\\$ *(\d[\d.,]*)|^ *\$(\d[\d.,]*)$", r"\1\2 dollars"),
    (r"\\[!$]", ""),
    (r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))", " "),
    (r"(?<![\\a-zA-Z])(sqrt|pi)(?![a-zA-Z])", r"\\\1"),
    (r"\\(?:text|mathrm|mbox) *\{ *([mgsh])\.? *\}", lambda match: f" {LETTER_UNITS[match[1]]} "),
    (r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox) *\{([^{}]*)\}", r" \1 "),
    (r"\$|(?<!\\)\\[()\[\]]", " "),
    (r"\\([{}%])", r"\1"),
    (r"\b(?:[Aa]n?|[Tt]he) +(?=[A-Za-z]{2})", ""),
    (r",? +(?:and|or) +", ","),
    (r"\^ *(?:\{ *\\circ *\}|\\circ)", " degrees "),
    (r"(?<!\\)\b[A-Z][a-z]{2,}", lambda match: match[0].lower()),
    (r"_\{(\w+)\}", r"_\1"),
    (r"(\d+)\.(\d*)\\overline *\{(\d{1,20})\}", lambda match: repeating(*match.groups())),
    (r"\\frac *(\w)", r"\\frac{\1}"),
    (r"(\\frac *\{[^{}]*\}) *(\w)", r"\1{\2}"),
    (r"\\sqrt *(\d)", r"\\sqrt{\1}"),
    (r"(?<![\w^.}])(\d+) *\\frac *\{(\d+)\} *\{(\d+)\}", r"(\1+\2/\3)"),
    (r"(?<![\w^.}/])(\d+) +(\d+)/(\d+)(?!\d)", r"(\1+\2/\3)"),
    (rf"^ *{NAME} *(?:\\in(?![a-z])|=(?= *[(\[{{][^()]*,))", ""),
    (r"\+ *(?=\\infty)", ""),
    (r"(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9])", ""),
    (r"\.+$", ""),
    (r" +", " "),
)
"""Replacements that give one spelling to variants in TeX and plain text, in this order."""

UNITS_ALIKE = {
    **{"centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "metre": "meter", "kilometer": "km", "foot": "ft"},
    **{"feet": "ft", "inche": "inch", "in": "inch", "hr": "hour", "min": "minute", "sec": "second", "kilogram": "kg"},
    **{"pound": "lb", "percent": "%", "mile per hour": "mph", "sq": "square", "children": "child"},
}
UNIT_WORDS = {
    *("cm", "mm", "meter", "km", "ft", "inch", "mile", "yard", "gram", "kg", "lb", "mph", "hour", "minute", "second"),
    *("day", "week", "month", "year", "dollar", "cent", "degree", "%", "unit", "square", "cubic", "way", "point", "th"),
    *("digit", "meal", "edge", "student", "integer", "multiple", "people", "ticket", "child", "per", "time", "liter"),
}
"""Words after a number that name its unit or the counted things, in the singular."""

RELATION = re.compile(r" ?(=|<|>|\\(?:le|ge|ne|in|approx)(?![a-z])) ?")
MATRIX = re.compile(r"\\begin\{(small|[pbBvV]?)matrix\}(.*)\\end\{\1matrix\}")


def last_boxed(text: str) -> str | None:
    """Return the content of the last \\boxed{...} or \\fbox{...} with balanced braces. None if there is none."""
    starts = [match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]
    for start in reversed(starts):
        depth = 1
        for i in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[start:i]
    bare = re.findall(r"\\boxed ([^\s$]+)", text)
    return bare[-1] if bare else None


def normalize(answer: str) -> str:
    """Return Minerva's normal form: without units, spaces, dollar signs and text commands, and with full TeX braces."""
    x = answer.split("=")[-1]
    # Replace commands before units, because the unit ft is also a part of \left.
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


def published(answer: str, wanted: str) -> bool:
    """Return whether two answers are the same in Minerva's normal form, as in the published evaluation."""
    left, right = normalize(answer), normalize(wanted)
    if left == right:
        return left != ""
    parts, others = parted(left), parted(right)
    if len(parts) == 1 == len(others):
        return same_value(left, right)
    alike = brackets(left) == brackets(right) and len(parts) == len(others)
    return alike and all(map(same_value, parts, others))


def brackets(x: str) -> tuple[str, str]:
    """Return the brackets around a tuple or an interval, which may differ; two empty texts if there are none."""
    enclosed = x[:1] in tuple(BRACKETS) and x[-1:] in tuple(BRACKETS.values())
    return (x[0], x[-1]) if enclosed else ("", "")


def parted(x: str) -> list[str]:
    """Return the parts of a list, tuple or interval at its outer commas; [x] itself without a comma."""
    parts = split(x[1:-1] if brackets(x)[0] else x)
    return parts if len(parts) > 1 else [x]


def split(x: str, separator: str = ",") -> list[str]:
    """Return the parts of a text between separators outside all brackets."""
    parts, depth = [""], 0
    for piece in re.split(rf"([(){{}}\[\]]|{re.escape(separator)})", x):
        depth += (piece in BRACKETS) - (piece in BRACKETS.values())
        if piece == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def equivalent(answer: str, wanted: str) -> bool:
    """Return whether two answers in TeX mean the same."""
    left, right = tidied(answer), tidied(wanted)
    if left == right:
        return left != ""
    (kind, parts), (other_kind, others) = parts_of(left), parts_of(right)
    if kind != other_kind or len(parts) != len(others) or not 0 < len(parts) <= MOST_PARTS:
        return False
    if all(map(same_part, parts, others)):
        return True
    if kind not in ("", "\\cup") or any(re.fullmatch(r"[A-Z]|[a-z]{3}.*", part) for part in parts):
        return False
    names = [{pieces[0] for part in side if len(pieces := RELATION.split(part)) > 1} for side in (parts, others)]
    if max(map(len, names)) > 1:
        return False
    for part in parts:
        match = next((other for other in others if same_part(part, other)), None)
        if match is None:
            return False
        others.remove(match)
    return True


def tidied(answer: str) -> str:
    """Return an answer in a uniform spelling."""
    x = last_boxed(answer) or answer
    if len(x) > LONGEST:
        return x
    for sign, plain in SIGNS.items():
        x = x.replace(sign, plain)
    for pattern, new in SPELLINGS:
        x = re.sub(pattern, new, x)
    lone = "," in x and not re.search(r"[(\[{]", x) and not re.search(r",\s", answer)
    return re.sub(r"(?<![\w,.])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])", lambda m: m[0].replace(",", ""), x) if lone else x


def repeating(whole: str, fixed: str, period: str) -> str:
    """Return a repeating decimal as a fraction."""
    nines = (10 ** len(period) - 1) * 10 ** len(fixed)
    return rf"\frac{{{int(whole + fixed + period) - int(whole + fixed)}}}{{{nines}}}"


def parts_of(x: str) -> tuple[str, list[str]]:
    """Return the brackets of a tuple, interval or matrix, "" for a list or a set, and its parts."""
    if match := MATRIX.fullmatch(x):
        rows = [row.split("&") for row in re.split(r"\\\\", match[2].removesuffix("\\\\"))]
        determinant = match[1] if match[1] in ("v", "V") else ""
        return f"{determinant}matrix {list(map(len, rows))}", [cell for row in rows for cell in row]
    if len(union := split(x, "\\cup")) > 1:
        return "\\cup", union
    kind = ""
    if brackets(x)[0] and balanced(x[1:-1]):
        inside = split(x[1:-1])
        if x[0] == "{" or len(inside) > 1:
            kind, x = ("" if x[0] == "{" else x[0] + x[-1]), x[1:-1]
    parts = split(x)
    if kind == "":
        both = [[part.replace("\\pm", sign) for sign in "+-"] if "\\pm" in part else [part] for part in parts]
        parts = [part for pair in both for part in pair]
    return kind, parts


def balanced(x: str) -> bool:
    """Return whether no bracket is closed before it is opened."""
    depth = 0
    for c in x:
        depth += (c in BRACKETS) - (c in BRACKETS.values())
        if depth < 0:
            return False
    return True


def same_part(left: str, right: str) -> bool:
    """Return whether two numbers with units, expressions, equations or inequalities mean the same."""
    (left, unit), (right, other) = without_unit(left), without_unit(right)
    if unit and other and unit != other:
        return False
    if left == right:
        return True
    a, b = sides(left), sides(right)
    if len(a) == 1 or len(b) == 1:
        return same_value(result(a), result(b))
    if len(a) == len(b) > 3 or (len(a) == len(b) and a[1] == b[1] and same_value(a[0], b[0])):
        return a[1::2] == b[1::2] and all(map(same_value, a[::2], b[::2]))
    if len(a) != len(b) or a[1] != b[1] or a[1] not in ("=", "\\ne"):
        return False
    return (same_value(a[0], b[2]) and same_value(a[2], b[0])) or same_curve(a, b)


def without_unit(x: str) -> tuple[str, str]:
    """Return an expression without the unit at its end, and the unit in a uniform spelling, or ""."""
    match = re.fullmatch(r"(.*(?:[\d)}\]]|\\pi)) ?([A-Za-z%. ]+)(?:\^\{?([23])\}?)?", x)
    if not match:
        return x, ""
    words = [word.removesuffix("s") if len(word) > 2 else word for word in match[2].replace(".", " ").split()]
    words = [UNITS_ALIKE.get(word, word) for word in words]
    if not words or not set(words) <= UNIT_WORDS:
        return x, ""
    name = " ".join(words)
    return match[1], {"2": "square ", "3": "cubic "}.get(match[3], "") + UNITS_ALIKE.get(name, name)


def sides(x: str) -> list[str]:
    """Return the sides of a relation with the signs between them, or [x] without a sign. > becomes <.

    A chain such as x=2+3=5 becomes x=5. An approximation after an exact value is removed.
    """
    parts = RELATION.split(x)
    if "\\approx" in parts:
        at = parts.index("\\approx")
        exact = at > 1 or not re.fullmatch(NAME, parts[0])
        parts = parts[:at] if exact else ["=" if side == "\\approx" else side for side in parts]
    if set(parts[1::2]) <= {">", "\\ge"}:
        parts = [{">": "<", "\\ge": "\\le"}.get(side, side) for side in reversed(parts)]
    if len(parts) > 3 and set(parts[1::2]) == {"="}:
        values = parts[2::2] if re.fullmatch(NAME, parts[0]) else parts[::2]
        if all(same_value(values[0], value) for value in values):
            return [parts[0], "=", values[-1]] if len(values) < len(parts[::2]) else [values[-1]]
    return parts


def result(parts: list[str]) -> str:
    """Return the value that an equation gives to a name or a calculation, or "" for other relations."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) != 3 or parts[1] != "=":
        return ""
    left, _, right = parts
    if re.fullmatch(NAME, left) or same_value(left, right):
        return right
    return left if re.fullmatch(NAME, right) else ""


def same_curve(a: list[str], b: list[str]) -> bool:
    """Return whether two equations in two or more letters have the same solutions: proportional differences."""
    if a[1] != "=" or len(set(re.findall(r"(?<![\\a-zA-Z])[a-z](?![a-z])", a[0] + " " + a[2]))) < 2:
        return False
    ratios = []
    for seed in SEEDS:
        values = [x for side in (a[0], a[2], b[0], b[2]) if (x := value(side, seed)) is not None]
        if len(values) < 4 or values[2] == values[3]:
            return False
        ratios.append((values[0] - values[1]) / (values[2] - values[3]))
    return ratios[0] != 0 and all(cmath.isclose(ratio, ratios[0], rel_tol=1e-9) for ratio in ratios)
