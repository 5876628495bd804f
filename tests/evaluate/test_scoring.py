"""Tests of scores on usual forms of answers. Each kind has correct answers, and wrong ones that look similar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.evaluate.equivalence import equivalent
from d3mlx.evaluate.programs import names_of_tests, sanitized, solution
from d3mlx.evaluate.tasks import TaskOptions, task

CORRECT_NUMBERS = {
    "42": [
        *("The answer is 42", "#### 42.", "so 6*7 = 42...", "It costs $42.00.", "**42**", "$$x = 42$$", "\\boxed{42}"),
        *("He has 42 ...", "He has 42 apples, ... .", "It is 42 \u2026", "It is 42%.", "The area is 42 m^2.", "42 m²."),
        *("$42\\text{ cm}^2$", "$42\\,$dollars", "42 grams of CO2.", "He has 42 on the 3rd day.", "<<6*7=42>>42"),
        *("- 42", "+42", "USD42", "is42.", "Total:42", "20 - 2 + 24 = $42\r\n", "from 40 to 42.", "84 / 2 = 42.0"),
    ],
    "1234": [
        *("It costs $1,234.00.", "€1,234.00", "£1,234", "\\$1,234", "US$1,234", "USD 1,234", "$1{,}234$"),
        *("$1,\\!234$", "1\u202f234 people", "1,234."),
    ],
    "-5": ["It is -5.", "It is \u22125 degrees.", "It is \u20135.", "It lost -$5.", "It is $-5.", "minus 5"],
    "1500000": ["It is 1.5 million.", "$1.5 million", "15,00,000"],
    "2.5": ["2 1/2 hours", "5/2", "$2\\frac12$", "$\\dfrac{5}{2}$"],
    "0.5": ["$.50", "1/2"],
}
WRONG_NUMBERS = {
    "42": [
        *("4 2", "420", "0.42", "42.5", "42/2", "1e42", "-42", "\u221242", "a loss of \u201342", "minus 42"),
        *("negative 42", "forty-two", "", "The answer is 42. No, 43.", "\\boxed{24}", "42 = 6*8"),
    ],
    "18": [
        *("18½", "x^{18}"),
        *("at 6:18 pm", "ratio 3:18", "15-18 dollars", "15\u201318", "$15-$18", "15 or 18", "So he has 2 * 18"),
        *("20 - 18", "2 \\times 18", "2^18", "18 million", "18²", "1 18/20", "..."),
    ],
    "2": ["1/2", "$\\frac{1}{2}$", "$\\frac12$", "The area is 9 m^2", "9 grams of CO2"],
    "3": ["He has 9 on the 3rd day", "1.8e3", "1.8.3"],
    "5": ["18,5", "5/0"],
    "185": ["18,5"],
    "234": ["1,234", "1{,}234", "1\u202f234"],
    "1234": ["1,2345", "12.34"],
}


@pytest.mark.parametrize(
    ("texts", "correct"), [(CORRECT_NUMBERS, True), (WRONG_NUMBERS, False)], ids=["correct numbers", "wrong numbers"]
)
def test_numbers_of_gsm8k(tmp_path: Path, texts: dict[str, list[str]], correct: bool) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": "", "answer": f"#### {wanted}"}) + "\n" for wanted in texts))
    judge = task("gsm8k", "llada", TaskOptions(data, shots=0))
    for index, answers in enumerate(texts.values()):
        assert [text for text in answers if judge.score(index, text).correct is not correct] == []


def test_strict_gsm8k_is_the_published_text_match(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "", "answer": "#### 42"}')
    judge = task("gsm8k", "llada", TaskOptions(data, shots=0))
    for text, strict in [("#### 42.", True), ("#### 42.00", False), ("#### $42", False), ("#### 42..", False)]:
        assert judge.score(0, text).strict is strict


PROMPT = 'import math\n\ndef add(a, b):\n    """Add.\n\n    >>> add(1, 2)\n    3\n    """\n'
ADD = "def add(a, b):\n    return a + b"
SUBTRACT = ADD.replace("+", "-")
BODY = "    return a + b"


def fence(code: str, word: str = "python", mark: str = "```") -> str:
    """Return a code block."""
    return f"{mark}{word}\n{code}\n{mark}\n"


def calling(name: str, more: str = "") -> str:
    """Return a function `add` that calls another function."""
    return f"def add(a, b):\n    return {name}(a, b){more}"


CORRECT_PROGRAMS = [
    *(fence(ADD, word) for word in ("", "py", "Python", "python3", "Python3", "python ", " python", "{.python}")),
    *(fence(ADD, mark=mark) for mark in ("~~~", "````")),
    *("Okay:\n" + fence(ADD) + "It adds.", "It adds. " + fence(ADD), "```py\n" + ADD, ADD + "\n```\nIt adds."),
    *("Okay:\n\n" + ADD + "\n\nIt adds.", "Okay:\n" + ADD + "\nIt adds.", ADD + "\n\nExample: add(1, 2)\nNote: fast"),
    "1. Write it:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n\n2. Done.",
    "def helper(a, b):\n    return a + b\n\nNow the function:\n\n" + calling("helper") + "\n\nDone.",
    # Other blocks before and after the solution.
    fence("pip install numpy", "bash") + fence("int add(int a, int b) { return a + b; }", "java") + fence(ADD),
    *(fence("print(add(1, 2))  # 3") + fence(ADD), fence(">>> add(1, 2)\n3", "") + fence(ADD)),
    fence("from solution import add\nassert add(1, 2) == 4") + fence(ADD),
    *(fence(PROMPT) + fence(ADD), fence("def add(a, b):\n    pass") + fence(ADD)),
    fence("def add(a, b):\n    raise NotImplementedError") + fence(ADD),
    fence("import operator") + fence(calling("operator.add")),
    fence("def helper(a, b):\n    return a + b") + fence(calling("helper")),
    fence(calling("helper")) + fence("def helper(a, b):\n    return a + b"),
    fence(ADD) + "A wrong one:\n" + fence(SUBTRACT),
    # Statements next to the solution are kept only if it needs them.
    *(ADD + "\nassert add(1, 1) == 3", ADD + "\nn = int(input())", ADD + "\nimport sys\nsys.exit(0)", ADD + "\nexit()"),
    "a, b = map(int, input().split())\n" + ADD + "\nprint(add(a, b))",
    "def add(a, b):\n    result = a + b\n    return result\n\nresult = add(int(input()), 2)",
    *(ADD + "\nimport absent\nabsent.show()", ADD + "\n\ndef check(candidate):\n    assert False\n\ncheck(add)"),
    ADD + "\n\nprint('cut off",
    "memo = {}\nmemo[0] = 0\n" + calling("sum", " if 0 else a + b + memo[0]"),
    "table = []\nfor i in range(3):\n    table.append(0)\n" + ADD + " + table[2]",
    "try:\n    import absent\nexcept ImportError:\n    absent = 0\n" + ADD + " + absent",
    "import sys\nsys.setrecursionlimit(9000)\ndef deep(n):\n    return n and deep(n - 1)\n" + ADD + " + deep(2000)",
    "class Node:\n    pass\n\nNode.zero = 0\n" + ADD + " + Node.zero",
    "from __future__ import annotations\ndef add(a: int, b: Unknown) -> Unknown:\n    return a + b",
    *("add = lambda a, b: a + b", "from math import *\n" + ADD + " + floor(0)", "BASE, TOP = 0, 1\n" + ADD + " + BASE"),
    "class Adder:\n    def add(self, a, b):\n        return a + b\n\nadd = Adder().add",
]
CORRECT_BODIES = [
    *(BODY, "\n" + BODY, BODY + "\n\nThis function adds.", fence(BODY), PROMPT + BODY),
    "The body:\n" + fence(BODY, "py"),
    *('    """Add."""\n' + BODY, "    # a comment\n\n" + BODY, BODY + "\n\nassert add(1, 2) == 4\nx = input()"),
    *("    def inner(x):\n        return x + b\n    return inner(a)", "    return math.floor(a + b)"),
    "    return helper(a, b)\n\ndef helper(a, b):\n    return a + b",
    "    if a:\n        return a + b\n    return b\n\nExplanation:\n- it adds",
]
WRONG_PROGRAMS = [
    *("", "```", "```python\n```", "You can use add(1, 2).", "The function add(a, b) returns a + b.", "a + b"),
    *("def add(a, b): returns the sum", fence("add(1, 2)"), fence("x = add"), fence(PROMPT), "add = None"),
    *(SUBTRACT, fence(SUBTRACT, "py"), "Okay:\n" + SUBTRACT + "\nIt adds.", ADD + "\n\n" + SUBTRACT, ADD + " + absent"),
    fence(SUBTRACT) + "Or:\n" + fence(ADD),
    *(ADD.replace("add", "plus"), ADD.replace("add", "Add"), ADD.replace("):", ")"), ADD.replace("    ", "")),
    *("class Solution:\n    def add(self, a, b):\n        return a + b", fence("import sys\nsys.exit(0)")),
    "def outer():\n    " + ADD.replace("\n", "\n    "),
    *("# def add(a, b):\n#     return a + b", "s = '''\n" + ADD + "\n'''"),
    "    >>> " + ADD.replace("\n", "\n    ... "),
    *("def add(a, b):\n    x = a +\n" + BODY, "def add(a, b):\n\nreturn a + b", "def add(a, b):\n    print(a + b)"),
    *(ADD.replace("+", "\u2212 -"), ADD.replace("a + b", "(a + b"), calling("helper"), "def add(a, b):\n    ..."),
    *(fence("function add(a, b) { return a + b; }", "javascript"), "from solution import add"),
]
WRONG_BODIES = [
    *("    pass", "    ...", "    print(a + b)", "    x = a + b", "    return a +", "  return a + b"),
    *("return a + b", "\n\n", "    return a - b"),
    *("    return a - b\n\nOr:\n" + fence(ADD), "    This returns a + b", "    return a − -b"),
]


def passes(program: str) -> bool:
    """Return whether the function `add` of a program is correct."""
    space: dict[str, Any] = {}
    try:
        exec(program, space)
        return bool(space["add"](1, 2) == 3 and space["add"](5, 6) == 11)
    except (Exception, SystemExit):
        return False


@pytest.mark.parametrize("prompt", ["", PROMPT], ids=["mbpp", "humaneval"])
def test_programs_in_usual_answers(prompt: str) -> None:
    answers = dict.fromkeys(CORRECT_PROGRAMS, True) | dict.fromkeys(WRONG_PROGRAMS, False)
    if prompt:
        answers |= dict.fromkeys(CORRECT_BODIES, True) | dict.fromkeys(WRONG_BODIES, False)
    for text, correct in answers.items():
        for written in (text, text.replace("\n", "\r\n")):
            assert passes(solution(written, ["add"], prompt)) is correct, written


@given(st.lists(st.sampled_from([*"():\n\t`'\"#0=,@", "def add", "a", "    ", "return ", "```", "global x"])))
def test_solution_accepts_any_text(parts: list[str]) -> None:
    solution("".join(parts), ["add"], PROMPT)
    names_of_tests("".join(parts))


def test_long_sums_are_handled() -> None:
    long = ADD + "\nx = " + "+".join("1" * 2000)
    assert passes(solution(long, ["add"]))
    assert passes(sanitized(long, ["add"]))


def test_helpers_that_only_the_tests_use_are_kept() -> None:
    prompt = "def encode(x):\n    return x + 1\n\ndef decode(x):\n    '''Undo.'''\n"
    wanted = {"decode", *names_of_tests("def check(candidate):\n    x = 1\n    assert candidate(encode(x)) == x\n")}
    assert wanted == {"decode", "encode"}
    assert solution("    return x - 1", wanted, prompt).count("def ") == 2


def test_strict_follows_the_published_extraction(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    tests = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    data.write_text(json.dumps({"prompt": PROMPT, "entry_point": "add", "test": tests}))
    options = TaskOptions(data, allow_code=True)
    llada, dream = task("humaneval", "llada", options), task("humaneval", "dream", options)
    for judge, text, strict in [
        (llada, fence(ADD), True),
        (llada, fence(ADD, "py"), False),
        (dream, BODY, True),
        (dream, BODY + "\n\nIt adds.", False),
    ]:
        verdict = judge.score(0, text)
        assert (verdict.correct, verdict.strict) == (True, strict)


SAME_ANSWERS = r"""
\text{12 cm} === 12 ;; 12\text{ cm} === 12 ;; 12\,\text{cm} === 12 ;; 12\ \text{cm} === 12
12~\mathrm{cm}^2 === 12 ;; 12 \text{ square units} === 12 ;; 12 cm^2 === 12 ;; 12\text{ cm}^2 === 12\text{ cm}^2
12 \text{ inches} === 12 ;; 30^\circ === 30 ;; 30^{\circ} === 30 ;; 30° === 30 ;; 30 degrees === 30^\circ
\$18.00 === 18 ;; $\$18$ === 18 ;; 18 dollars === \$18 ;; \$1,234 === 1234 ;; 1{,}234 === 1234 ;; 1,\!234 === 1234
1\,234 === 1234 ;; 10\% === 10 ;; 10 percent === 10\% ;; \frac12 === 1/2 ;; \dfrac{1}{2} === \frac{1}{2}
\tfrac1{20} === \frac{1}{20} ;; \frac{1}2 === 0.5 ;; \frac{a+b}2 === \frac{a+b}{2} ;; 1\frac12 === 3/2
1 1/2 === \frac32 ;; -1\frac{1}{2} === -1.5 ;; x^2\frac{1}{2} === \frac{x^2}{2} ;; 2\frac{x}{3} === \frac{2x}{3}
0.50 === .5 ;; 3 \times 10^5 === 300000 ;; 3\cdot 10^{5} === 300,000 ;; 0.\overline{3} === \frac13
0.1\overline{6} === \frac16 ;; \sqrt{8} === 2\sqrt2 ;; 2sqrt(2) === 2\sqrt{2} ;; √2 === \sqrt2 ;; 2π === 2\pi
−3 === -3 ;; x**2 === x^2 ;; x=5 === 5 ;; x = 5 === x=5 ;; 5=x === x=5 ;; 5 === x=5 ;; \angle ABC = 30^\circ === 30
AB = 5 === 5 ;; f(x)=2x+1 === 2x+1 ;; f(2) = 5 === 5 ;; a_1 = 3 === 3 ;; x \approx 3.14 === 3.14
x = 2 + 3 = 5 === 5 ;; 2^3 = 8 === 8 ;; 5\sqrt{2} \approx 7.07 === 5\sqrt{2} ;; y=2x+1 === y = 1 + 2x
y=2x+1 === 2x-y+1=0 ;; 2x+4y=6 === x+2y=3 ;; 2x+1=y === y=2x+1 ;; x \in [2,5) === [2,5)
x\in\left[2, 5\right) === [2,5) ;; [2, \infty) === [2,+\infty) ;; [2,∞) === [2,\infty)
(-\infty,1)\cup(2,\infty) === (2,\infty) \cup (-\infty, 1) ;; x \ge 5 === x\geq 5 ;; x >= 5 === x \geq 5
5 \le x === x \geq 5 ;; x \neq 3 === x\ne 3 ;; -2<x<3 === -2 < x < 3 ;; 1,-2 === -2, 1 ;; \{1,2\} === {2, 1}
1 \text{ and } 2 === 1,2 ;; x=1 or x=2 === 1,2 ;; x = 1, x = 2 === 2, 1 ;; x=1\text{ or }2 === 1,2 ;; \pm 2 === 2,-2
x=\pm 2 === -2, 2 ;; 1\pm\sqrt{2} === 1-\sqrt2, 1+\sqrt2 ;; \{1,2\} === 1, 2 ;; (1,2),(3,4) === (3, 4), (1, 2)
(1, 2) === (1,2) ;; $1$ and $2$ === 1, 2 ;; (0,100) === (0, 100)
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} === \begin{pmatrix}1&2\\3&4\end{pmatrix}
\begin{bmatrix} 1/2 \\ 3 \end{bmatrix} === \begin{pmatrix} \frac{1}{2} \\ 3 \end{pmatrix}
\text{Evelyn} === Evelyn ;; \text{even} === even ;; an ellipse === ellipse ;; \text{a circle} === \text{circle}
the parabola === \text{parabola} ;; Tuesday === tuesday ;; \textbf{(B)} === \text{(B)} ;; B === \text{(B)}
banana split === banana split ;; \text{no\ solution} === no solution ;; 101_2 === 101_{2} ;; \mathrm{(B)} === (B)
$5$. === 5 ;; 5. === 5 ;; $5$ dollars === 5 ;; a + b === b+a ;; a b === ab ;; a - 1 === -1+a ;; 2a + b === b + 2a
\left(3,\ 0.5\right) === (3, \frac12) ;; \displaystyle\frac{1}{2} === 1/2 ;; 10{,}000{,}000 === 10,000,000
\boxed{5} === 5 ;; $\boxed{5}$. === 5 ;; \frac{\sqrt3}{2} === \sqrt{3}/2 ;; 1,000,000 === 1000000
6 \text{ or } 7 === 6,7 ;; 5\text{ cm} === 5\text{ centimeters} ;; 72 \text{ miles per hour} === 72
\frac{3}{4}\pi === \frac{3\pi}{4} ;; 3x^2 - 2 === -2+3x^{2} ;; (x-1)(x+1) === x^2-1 ;; x=1,y=2 === x=1, y=2
2+3i === 3i+2 ;; 1000 === 1\,000 ;; 10\text{th} === 10 ;; All real numbers === \text{all real numbers}
\frac{\sqrt{2}}{2} === \dfrac{1}{\sqrt{2}} ;; \left\{-1, 3\right\} === 3,-1 ;; x = -1, 3 === -1,3
y = \frac{1}{2}x + 3 === y = 0.5x+3 ;; 24\pi \text{ cm}^3 === 24\pi
\$32,\!500 === 32500 ;; \$\frac{1}{2}$ === 1/2
\begin{pmatrix} -1 \\ 2 \end{pmatrix} === \begin{pmatrix}-1\\2\end{pmatrix}
(3, \frac{\pi}{2}) === \left( 3, \frac{\pi}{2} \right) ;; (-\infty, 3] === (-\infty,3] ;; 6+9i === 9i+6
\text{June 20} === June 20 ;; \text{odd} === odd ;; 11\sqrt2 === 11\sqrt{2} ;; 2k === 2k ;; 3:5 === 3:5
17_8 === 17_{8} ;; 4210_{5} === 4210_5 ;; \frac{3}{56} === 3/56 ;; 5.4 \text{ cents} === 5.4 ;; \$12.50 === 12.5
6 - 5i === 6-5i ;; p^2 - p + 1 === 1-p+p^2 ;; \sqrt{66} === 66^{1/2} ;; (2,\infty) === x \in (2, \infty)
[-2,7] === \left[-2, 7\right] ;; \cot x === \cot x ;; \tan^{-1} 2 === \tan^{-1}2 ;; \frac 59 === 5/9
90^\circ === 90 ;; 3 \pm 2\sqrt{2} === 3+2\sqrt2, 3-2\sqrt2 ;; x^3 + 3x - 6 === x^3+3x-6 ;; 1,-1,i,-i === i,-i,1,-1
\frac{9}{256} === \frac{9}{256}. ;; k = 3 === 3 ;; The answer is 5 === The answer is 5 ;; n = 10 === 10
\boxed{\text{(C)}} === C ;; \mathbf{(C)} === \text{(C)} ;; 10! === 10! ;; 2^{1/3} === \sqrt[3]{2} ;; 0 === 0
-0 === 0 ;; 1/2 === 0.5 ;; x \leqslant 4 === x\le4 ;; (5,1,2) === (5, 1, 2) ;; $\frac{2}{3}$. === 2/3
y - 4 = 2(x - 1) === y = 2x+2 ;; x^2 + y^2 = 4 === y^2+x^2=4 ;; 5 \text{ feet} === 5 ;; \text{5 feet} === 5
1.5 \text{ hours} === 3/2 ;; \theta = 30^\circ === 30 ;; S = \{1,2\} === 1,2 ;; \angle A = 45^{\circ} === 45^\circ
\text{Total} = 50 === 50 ;; P = 3/8 === 3/8 ;; r = 4\text{ cm} === 4 ;; 10 \% === 10\%
\frac{-1}{2} === -\frac{1}{2} ;; 1, 2, 3 === 1,2,3 ;; \emptyset === \emptyset ;; -\sqrt{3} === -\sqrt3
3\sqrt{3} + 2 === 2 + 3\sqrt 3 ;; a = 2, b = 3 === a=2,b=3 ;; 8 \pi === 8\pi ;; (x+2)(x-3) === (x - 3)(x + 2)
12\text{ sq. units} === 12
"""
DIFFERENT_ANSWERS = r"""
x=(y+1)^2 =/= z=(y+1)^2 ;; x=(y+1)(y-1) =/= y=(x+1)(x-1)
13 =/= 12 ;; 12\text{ cm} =/= 12\text{ m} ;; 12 hours =/= 12 minutes ;; \$5 =/= 5 cents ;; 30^\circ =/= 60
0.333 =/= 1/3 ;; 0.333\ldots =/= 0.333 ;; 0.\overline{3} =/= 0.3 ;; 0.\overline{3} =/= 0.33 ;; 1 2 =/= 12
1 1/2 =/= 5.5 ;; 1 1/2 =/= 11/2 ;; 1\frac12 =/= 1/2 ;; 2\frac{x}{3} =/= 2+\frac{x}{3}
x^2\frac{1}{2} =/= x^2+\frac12 ;; 100, 200 =/= 100200 ;; (1,234) =/= 1234 ;; 1,234,5 =/= 12345 ;; a + b =/= b
a - 1 =/= -1 ;; a b =/= b ;; b + a c =/= b + c ;; banana =/= banan ;; 3x=15 =/= 15 ;; x^2=25 =/= 25 ;; 2x+3=7 =/= 7
x>=5 =/= 5 ;; x=5 =/= y=5 ;; y=2x+1 =/= x=2y+1 ;; y=2x+1 =/= 3y=2x+1 ;; y=2x+1 =/= 1 ;; y=2x+1 =/= y=2x-1
x+y=10 =/= 10 ;; x \le 5 =/= 5 ;; x>5 =/= x<5 ;; x>5 =/= x\geq5 ;; x\neq 3 =/= 3 ;; x \neq 3 =/= x=3
2x=10 =/= x=5 ;; x=5 =/= x=6 ;; -x=5 =/= 5 ;; x=1 or x=2 =/= 1 ;; $x=1$ or $x=2$ =/= 1 ;; $x=1$ or $x=2$ =/= 2
x=1, x=2 =/= 2 ;; $1$ and $2$ =/= 1 ;; [2,5) =/= (2,5) ;; [2,5) =/= [5,2) ;; (1,2) =/= (2,1) ;; (1,2) =/= 1,2
[2,5) =/= 2,5 ;; \pm 2 =/= 2 ;; \pm 2 =/= -2 ;; 1,2 =/= 1,2,3 ;; 1,1,2 =/= 1,2,2 ;; 1,2 =/= 1 ;; \{1,2\} =/= (1,2)
(1,2),(3,4) =/= (2,1),(3,4) ;; (1,2),(3,4) =/= (1,2,3,4) ;; x=1,y=2 =/= x=2,y=1 ;; x=1,y=2 =/= 2,1
B,C,A =/= A,B,C ;; \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} =/= \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}
\begin{pmatrix} 1 & 2 & 3 & 4 \end{pmatrix} =/= \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix} =/= \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
(-\infty,1)\cup(2,\infty) =/= (-\infty,1)\cup[2,\infty) ;; (-\infty,1) =/= (-\infty,1)\cup(2,\infty)
(-\infty,1)\cap(2,\infty) =/= (-\infty,1)\cup(2,\infty) ;; east =/= seat ;; even =/= odd ;; x =/= X ;; (A) =/= (B)
101_2 =/= 101_3 ;; 101_2 =/= 5 ;; 101_2 =/= 101 ;; 1000000007 =/= 1000000008 ;; 10\% =/= 0.1 ;; 10\% =/= 1000
5! =/= 5 ;; |x| =/= x ;; |-5| =/= 5- ;; -\frac12 =/= \frac12 ;; −3 =/= 3 ;; 2^{10} =/= 2^10+1 ;; \sqrt{2} =/= 2
\sqrt[3]{8} =/= \sqrt{8} ;; 2 < x =/= 2 ;; 3 \times 10^5 =/= 3 \times 10^6 ;; 5 \text{ or } 6 =/= 56
5\text{ or }6 =/= 5 ;; yes =/= no ;; left =/= le ;; always =/= al ;; 12 feet tall or 13 =/= 12 ;; issue =/= is
5 or so =/= 5 ;; not 5 =/= 5 ;; \text{not }5 =/= 5 ;; between 5 =/= 5 ;; less than 5 =/= 5 ;; more than $5$ =/= 5
5 is wrong =/= 5 ;; \log_2 3 =/= \log_3 2 ;; \sin x =/= \cos x ;; 2\theta =/= \theta ;; 1/2/3 =/= 3/2 ;; 4, -4 =/= 4
$4$, $-4$ =/= 4 ;; 2x =/= x^2 ;; \frac{1}{2\pi} =/= \frac{\pi}{2} ;; 1.2 =/= 12 ;; 3.14 =/= \pi ;; e =/= 2.71828
x=5 =/= x>5 ;; x = -1, 3 =/= 1,3 ;; y = 2x =/= y = 2 ;; y=2x+1 =/= y=2x+1.5 ;; (2,3] =/= [2,3) ;; (2,3) =/= (3,2)
24\pi =/= 24 ;; 24 =/= 24\pi ;; 3:5 =/= 5:3 ;; 17_8 =/= 17 ;; June 20 =/= June 21 ;; 5.4 =/= 54
3 \pm \sqrt2 =/= 3+\sqrt2 ;; 3 \pm \sqrt2 =/= 3 \pm \sqrt3 ;; 1,2,2 =/= 1,1,2 ;; 10! =/= 10 ;; x<3 =/= x>3
x<3 =/= x\le 3 ;; -2<x<3 =/= -2<x\le3 ;; -2<x<3 =/= -3<x<2 ;; x \ne 3 =/= 3 ;; x=3 =/= x\ne3 ;; (1,2) =/= \{1,2\}
k=3 =/= k=4 ;; 2 =/= 2i ;; i =/= 1 ;; xy =/= x+y ;; x^2 =/= x^{-2} ;; \sqrt{2} =/= -\sqrt{2} ;; \frac{1}{2} =/= 2
50\% =/= 0.5 ;; 1,000 =/= 1 ;; 1.000 =/= 1000 ;; June =/= July ;; (A) =/= A and B ;; A, B =/= A ;; A,B =/= B,A
\log 2 =/= \log 3 ;; f(x)=2 =/= f(x)=3 ;; \emptyset =/= 0 ;; \infty =/= -\infty ;; 3x =/= 3y ;; x=3y =/= y=3x
x^2+y^2=4 =/= x^2+y^2=2 ;; x+y=4 =/= 2x+y=4 ;; \text{5 feet} =/= \text{5 inches}
60 \text{ miles} =/= 60 \text{ mph} ;; 5 hours 30 minutes =/= 5 ;; 5 hours 30 minutes =/= 530 ;; 10^2 =/= 10
5\text{ cm}^2 =/= 5\text{ cm}^3 ;; 5 m =/= 5 ;; 5x =/= 5 ;; 2 x =/= 2 ;; 7 \mod 3 =/= 7 ;; 7 \pmod{3} =/= 7
\lfloor 5 \rfloor =/= 5x ;; [5] =/= (6) ;; \{5\} =/= 6 ;; n(n+1)=5 =/= 5 ;; x = 5 or more =/= 5 ;; at least 5 =/= 5
\ge 5 =/= 5 ;; >5 =/= 5 ;; = 6 =/= 5 ;; 5+ =/= 5 ;; 5- =/= 5 ;; \frac{1}{2}, \frac{1}{3} =/= 1/2
\begin{pmatrix}1\\2\end{pmatrix} =/= (1,2) ;; \begin{pmatrix}1\\2\end{pmatrix} =/= \begin{pmatrix}1&2\end{pmatrix}
12th =/= 13 ;; no =/= yes ;; even =/= evens ;; 2 solutions =/= 3 ;; P(A)=1/2 =/= P(B)=1/2 ;; AB=5 =/= CD=5
1 1/2 =/= 1/2 ;; -1\frac12 =/= -0.5 ;; \overline{AB} =/= \overline{CD} ;; 0.\overline{9} =/= 0.9
0.\overline{12} =/= 0.12 ;; 1{,}5 =/= 15 ;; 1\,5 =/= 15 ;; 3\ 4 =/= 34 ;; \frac{3}{4 =/= 3 ;; x_1 =/= x_2
x_{12} =/= x_1 ;; Yes, 5 =/= 5 ;; $5$ or maybe $6$ =/= 5 ;; approximately 5.1 =/= 5 ;; 5 \approx 6 =/= 6
"""


@pytest.mark.parametrize(
    ("table", "sign", "correct"),
    [(SAME_ANSWERS, " === ", True), (DIFFERENT_ANSWERS, " =/= ", False)],
    ids=["same answers", "different answers"],
)
def test_answers_of_math(table: str, sign: str, correct: bool) -> None:
    pairs = [pair.split(sign) for line in table.split("\n") for pair in line.split(" ;; ") if pair]
    assert [pair for pair in pairs if equivalent(*pair) is not correct] == []
    assert [pair for pair in pairs if equivalent(*reversed(pair)) is not correct] == []


@pytest.mark.parametrize(
    ("stated", "wanted", "correct", "strict"),
    [
        ("3x=15", "15", False, True),
        ("a + b", "b", False, True),
        ("always", "al", False, True),
        ("$1$ and $2$", "1", False, True),
        ("12\\text{ cm}", "12\\text{ m}", False, True),
        ("-2, 1", "1, -2", True, False),
        ("\\pm 2", "2, -2", True, False),
        ("0.\\overline{3}", "\\frac13", True, False),
        ("\\frac12", "0.5", True, True),
    ],
)
def test_strict_math_uses_minervas_form(tmp_path: Path, stated: str, wanted: str, correct: bool, strict: bool) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"problem": "", "solution": "", "answer": wanted}))
    text = f"Final Answer: The final answer is {stated}. I hope it is correct."
    verdict = task("math", "dream", TaskOptions(data)).score(0, text)
    assert (verdict.correct, verdict.strict) == (correct, strict)
