"""Answers as models write them, with what they mean. Each kind has right answers and wrong ones that look alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.evaluate.programs import names_of_tests, sanitised, solution
from d3mlx.evaluate.tasks import TaskOptions, task

RIGHT_NUMBERS = {
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
    ("texts", "right"), [(RIGHT_NUMBERS, True), (WRONG_NUMBERS, False)], ids=["right numbers", "wrong numbers"]
)
def test_numbers_of_gsm8k(tmp_path: Path, texts: dict[str, list[str]], right: bool) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": "", "answer": f"#### {wanted}"}) + "\n" for wanted in texts))
    judge = task("gsm8k", "llada", TaskOptions(data, shots=0))
    for index, answers in enumerate(texts.values()):
        assert [text for text in answers if judge.score(index, text).correct is not right] == []


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
    return f"{mark}{word}\n{code}\n{mark}\n"


def calling(name: str, more: str = "") -> str:
    return f"def add(a, b):\n    return {name}(a, b){more}"


RIGHT_PROGRAMS = [
    *(fence(ADD, word) for word in ("", "py", "Python", "python3", "Python3", "python ", " python", "{.python}")),
    *(fence(ADD, mark=mark) for mark in ("~~~", "````")),
    *("Sure:\n" + fence(ADD) + "It adds.", "It adds. " + fence(ADD), "```py\n" + ADD, ADD + "\n```\nIt adds."),
    *("Sure:\n\n" + ADD + "\n\nIt adds.", "Sure:\n" + ADD + "\nIt adds.", ADD + "\n\nExample: add(1, 2)\nNote: fast"),
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
    # Statements beside the solution: those that only act go, those that it needs stay.
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
RIGHT_BODIES = [
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
    *(SUBTRACT, fence(SUBTRACT, "py"), "Sure:\n" + SUBTRACT + "\nIt adds.", ADD + "\n\n" + SUBTRACT, ADD + " + absent"),
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
    """Return whether `add` of a program adds."""
    space: dict[str, Any] = {}
    try:
        exec(program, space)
        return bool(space["add"](1, 2) == 3 and space["add"](5, 6) == 11)
    except (Exception, SystemExit):
        return False


@pytest.mark.parametrize("prompt", ["", PROMPT], ids=["mbpp", "humaneval"])
def test_programs_in_usual_answers(prompt: str) -> None:
    answers = dict.fromkeys(RIGHT_PROGRAMS, True) | dict.fromkeys(WRONG_PROGRAMS, False)
    if prompt:
        answers |= dict.fromkeys(RIGHT_BODIES, True) | dict.fromkeys(WRONG_BODIES, False)
    for text, right in answers.items():
        for written in (text, text.replace("\n", "\r\n")):
            assert passes(solution(written, ["add"], prompt)) is right, written


@given(st.lists(st.sampled_from([*"():\n\t`'\"#0=,@", "def add", "a", "    ", "return ", "```", "global x"])))
def test_no_text_breaks_the_search_for_a_program(parts: list[str]) -> None:
    solution("".join(parts), ["add"], PROMPT)
    names_of_tests("".join(parts))


def test_long_sums_are_not_searched() -> None:
    long = ADD + "\nx = " + "+".join("1" * 2000)
    assert passes(solution(long, ["add"]))
    assert passes(sanitised(long, ["add"]))


def test_helpers_that_only_the_tests_use_stay() -> None:
    prompt = "def encode(x):\n    return x + 1\n\ndef decode(x):\n    '''Undo.'''\n"
    wanted = {"decode", *names_of_tests("def check(candidate):\n    x = 1\n    assert candidate(encode(x)) == x\n")}
    assert wanted == {"decode", "encode"}
    assert solution("    return x - 1", wanted, prompt).count("def ") == 2


def test_strict_keeps_the_published_extraction(tmp_path: Path) -> None:
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
