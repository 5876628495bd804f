"""Tests of all tasks with small data files: questions, verdicts, and errors about invalid files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.data.stories.stories import problem
from d3mlx.errors import ConfigError, D3Error, DataError
from d3mlx.evaluate.equivalence import equivalent, last_boxed, normalize, published, tidied
from d3mlx.evaluate.tasks import TASKS, TaskOptions, task

GSM = [
    {"question": "How many?", "answer": "There are 6*7=<<6*7=42>>42.\n#### 42"},
    {"question": "How much?", "answer": "This much.\n#### 1,200"},
]
MATHS = [
    {"problem": "Halve $x$.", "solution": r"It is $\boxed{\frac{x}{2}}$.", "level": "Level 1"},
    {"problem": "Name the pair.", "solution": "Look.", "answer": "(3, \\frac12)"},
]
CODE = [
    {
        "task_id": "x/0",
        "prompt": 'def add(a, b):\n    """Add."""\n',
        "entry_point": "add",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }
]
MBPPS = [
    {
        "task_id": 2,
        "text": "Write a function to add.",
        "code": "def add(a, b):\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(-1, 1) == 0"],
    }
]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(rows: list[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_embedded_needs_no_data() -> None:
    embedded = task("embedded", "llada")
    first = problem(0, "held-out")
    assert embedded.ask(0).chat
    assert embedded.ask(0).text == first.question
    assert embedded.score(0, first.solution).correct
    assert not embedded.score(0, "The answer is 0.").correct
    assert embedded.score(0, "I do not know.").answer is None


def test_gsm8k_zero_shot(write: Any) -> None:
    gsm8k = task("gsm8k-cot", "llada", TaskOptions(data=write(GSM)))
    assert gsm8k.size == 2
    assert gsm8k.ask(0).text == "Q: How many?\nA: Let's think step by step."
    assert not gsm8k.ask(0).chat
    assert task("gsm8k-cot", "dream", TaskOptions(data=write(GSM))).ask(0).chat
    assert "Q:" in gsm8k.stop


@pytest.mark.parametrize(
    ("index", "text", "correct", "strict"),
    [
        (0, " 6 times 7. The answer is 42.", True, True),
        (0, "6 * 7 = $42.", True, False),
        (0, "The answer is 42. Or 43", False, True),
        (0, "The answer is 41.", False, False),
        (0, "forty-two", False, False),
        (1, "It costs $1,200.", True, False),
        (1, "The answer is 1200. ", True, True),
        (1, "1200.5", False, False),
    ],
)
def test_gsm8k_verdicts(write: Any, index: int, text: str, correct: bool, strict: bool) -> None:
    verdict = task("gsm8k-cot", "llada", TaskOptions(data=write(GSM))).score(index, text)
    assert (verdict.correct, verdict.strict) == (correct, strict)


def test_gsm8k_with_worked_examples(write: Any) -> None:
    data, shots = write(GSM), write(GSM * 3, "shots.jsonl")
    gsm8k = task("gsm8k", "llada", TaskOptions(data, shots, shots=1))
    assert gsm8k.ask(1).text == f"Question: How many?\nAnswer: {GSM[0]['answer']}\n\nQuestion: How much?\nAnswer:"
    assert task("gsm8k", "llada", TaskOptions(data, shots)).ask(0).text.count("Question:") == 6
    assert gsm8k.score(0, "42\n#### 42").strict
    assert not gsm8k.score(0, "42").strict


def test_math_prompts(write: Any) -> None:
    data, shots = write(MATHS), write(MATHS * 2, "shots.jsonl")
    four = task("math", "llada", TaskOptions(data, shots)).ask(0)
    assert not four.chat
    assert four.text.startswith(
        "Problem:\nHalve $x$.\n\nSolution: It is $\\boxed{\\frac{x}{2}}$.\n"
        "Final Answer: The final answer is $\\frac{x}{2}$. I hope it is correct.\n\nProblem:\nName the pair."
    )
    assert four.text.endswith("\n\nProblem:\nHalve $x$.\n\nSolution:")
    assert four.text.count("Problem:") == 5
    zero = task("math", "dream", TaskOptions(data)).ask(0)
    assert zero.chat
    assert zero.text == "Problem:\nHalve $x$.\n\nSolution:"


@pytest.mark.parametrize(
    ("index", "text", "correct", "strict"),
    [
        (0, "Final Answer: The final answer is $\\frac{x}{2}$. I hope it is correct.", True, True),
        (0, "Final Answer: The final answer is $x/2$", True, True),
        (0, "So it is $\\boxed{0.5x}$, as required.", True, False),
        (0, "$\\boxed{x/2}$. Final Answer: The final answer is $x$. I hope it is correct.", False, False),
        (0, "half of it", False, False),
        (1, "It is \\boxed{\\left(3,\\ 0.5\\right)}", True, False),
        (1, "\\boxed{(3, 0.5]}", False, False),
    ],
)
def test_math_verdicts(write: Any, index: int, text: str, correct: bool, strict: bool) -> None:
    verdict = task("math", "dream", TaskOptions(write(MATHS))).score(index, text)
    assert (verdict.correct, verdict.strict) == (correct, strict)


SAME = [
    ("1/2", "\\frac{1}{2}"),
    ("\\dfrac34", "0.75"),
    ("x=5", "5"),
    ("1,000", "1000"),
    ("10\\%", "10"),
    ("$12\\text{ cm}$", "12"),
    ("30^\\circ", "30"),
    ("\\text{(B)}", "(B)"),
    ("\\sqrt{8}", "2\\sqrt{2}"),
    ("\\sqrt2", "\\sqrt{2}"),
    ("\\sqrt[3]{27}", "3"),
    ("(x+1)^2", "x^2+2x+1"),
    ("\\frac{\\pi}{3}", "\\pi/3"),
    ("[2,5)", "\\left[2, 5\\right)"),
    ("1\\frac{1}{2}", "1.5"),
    ("-\\frac{1}{3}", "\\frac{-1}{3}"),
    ("1+2i", "2i + 1"),
    ("1, -2", "1,-2"),
    ("\\text{east}", "east"),
    ("x y", "y x"),
    ("2^{10}", "1024"),
]
OTHER = [
    ("1/3", "0.333"),
    ("[2,5)", "(2,5]"),
    ("[2,5)", "2,5"),
    ("1,2", "1,2,3"),
    ("1000000007", "1000000008"),
    ("east", "seat"),
    ("a+c", "2b"),
    ("x", "X"),
    ("(2)^9^9^9^9", "2"),
    ("", ""),
    ("1/0", "2/0"),
    ("((((1", "1"),
    ("\\frac{1}", "1"),
    ("(A)", "(B)"),
    ("9" * 5000, "8" * 5000),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_answers_that_mean_the_same(left: str, right: str) -> None:
    assert equivalent(left, right)
    assert equivalent(right, left)


@pytest.mark.parametrize(("left", "right"), OTHER, ids=lambda text: text[:12])
def test_answers_that_differ(left: str, right: str) -> None:
    assert not equivalent(left, right)
    assert not equivalent(right, left)


@given(st.text("0123456789+-*/^(){}[],.\\ fracsqtxyi$%=", max_size=40), st.text(max_size=10))
def test_comparison_accepts_any_text(left: str, right: str) -> None:
    assert equivalent(left, right) == equivalent(right, left)
    assert equivalent(left, left) == (tidied(left) != "")
    assert published(left, left) == (normalize(left) != "")


def test_last_boxed() -> None:
    assert last_boxed("\\boxed{1} and \\boxed{\\frac{1}{2}} end") == "\\frac{1}{2}"
    assert last_boxed("\\boxed{1} and \\boxed{\\frac{1}{2} open") == "1"
    assert last_boxed("\\boxed 7$") == "7"
    assert last_boxed("none") is None


def test_humaneval(write: Any) -> None:
    data = write(CODE)
    with pytest.raises(ConfigError, match="--allow-code-execution"):
        task("humaneval", "llada", TaskOptions(data))
    llada = task("humaneval", "llada", TaskOptions(data, allow_code=True))
    assert llada.ask(0).text.endswith(f"tests:\n```python\n{CODE[0]['prompt']}\n```\n ")
    correct = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds."
    assert llada.score(0, correct).correct
    assert llada.score(0, "```python\n    return a + b\n```").correct
    wrong = llada.score(0, correct.replace("+", "-"))
    assert (wrong.correct, wrong.why) == (False, "AssertionError: ")
    assert not llada.score(0, "").correct
    dream = task("humaneval", "dream", TaskOptions(data, allow_code=True))
    assert dream.ask(0).opening == f"Here is the completed function:\n```python\n{CODE[0]['prompt']}\n"
    assert dream.score(0, "    return a + b\n").correct


def test_mbpp(write: Any) -> None:
    data = write(MBPPS)
    llada = task("mbpp", "llada", TaskOptions(data, data, shots=1, allow_code=True))
    tests = "\n".join(MBPPS[0]["test_list"])
    question = f"task: Write a function to add. Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    assert llada.ask(0).text.count(question) == 2
    assert f"[BEGIN]\n{MBPPS[0]['code']}\n[DONE]\n\n" in llada.ask(0).text
    assert llada.score(0, "def add(a, b):\n    return b + a\n").correct
    assert not llada.score(0, "def add(a, b):\n    return 3\n").correct
    sanitized = [{"prompt": "Add.", "test_list": ["assert add(1, 2) == 3"], "test_imports": ["import math"]}]
    dream = task("mbpp", "dream", TaskOptions(write(sanitized, "s.jsonl"), allow_code=True))
    assert "task:\nAdd.\nYour code" in dream.ask(0).text
    assert dream.score(0, "def add(a, b):\n    return math.floor(a + b)\n").correct


INVALID: list[tuple[str, str, list[str]]] = [
    ("gsm8k-cot", '{"question": "q", "answer": "#### 1"}\n{"question": "q"}\n', ["record 2", "'answer' is missing"]),
    ("gsm8k-cot", '{"question": "q", "answer": "1"}', ["record 1", "####"]),
    ("gsm8k-cot", '{"question": 3, "answer": "#### 1"}', ["record 1", "'question' must be a text"]),
    ("gsm8k-cot", '{"question": "q"', ["record 1", "not valid JSON"]),
    ("gsm8k-cot", "[1]", ["record 1", "not a JSON object"]),
    ("gsm8k-cot", "\n \n", ["no records"]),
    ("math", '{"problem": "p", "solution": "s"}', ["record 1", "\\boxed"]),
    ("mbpp", '{"code": "", "test_list": []}', ["record 1", "'text' or 'prompt'"]),
    ("mbpp", '{"text": "", "test_list": [1]}', ["record 1", "'test_list' must be a list of texts"]),
    (
        "mbpp",
        '{"text": "", "test_list": [], "test_imports": "import math"}',
        ["record 1", "'test_imports' must be a list"],
    ),
    ("humaneval", '{"prompt": "", "test": ""}', ["record 1", "'entry_point' is missing"]),
]


@pytest.mark.parametrize(("name", "content", "reasons"), INVALID)
def test_invalid_data_is_refused_in_one_sentence(tmp_path: Path, name: str, content: str, reasons: list[str]) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        task(name, "dream", TaskOptions(path, allow_code=True))
    for reason in ("broken.jsonl", *reasons):
        assert reason in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("gsm", {}, "Unknown task 'gsm'"),
        ("math", {}, "--data"),
        ("embedded", {"data": Path("x")}, "Leave out --data"),
        ("embedded", {"shots": -2}, "0 or more"),
        ("embedded", {"shots": 2, "chat": False}, "chat template for worked examples"),
        ("embedded", {"shots": 2, "shots_data": "file"}, "--shots-data"),
        ("gsm8k-cot", {"data": "file", "shots": 2}, "no worked examples"),
        ("gsm8k", {"data": "file"}, "--shots-data"),
        ("gsm8k", {"data": "file", "shots_data": "file", "shots": 9}, "has 2 records"),
        ("gsm8k", {"data": "file", "shots": -1}, "0 or more"),
        ("gsm8k", {"data": "file", "shots": 0, "shots_data": "file"}, "--num-fewshot"),
        ("gsm8k", {"data": Path("absent.jsonl")}, "absent.jsonl does not exist"),
    ],
)
def test_invalid_options_are_refused(write: Any, name: str, options: dict[str, Any], reason: str) -> None:
    file = write(GSM)
    with pytest.raises(D3Error, match=reason):
        task(name, "llada", TaskOptions(**{key: file if value == "file" else value for key, value in options.items()}))


def test_every_task_has_a_test_here() -> None:
    assert set(TASKS) == {"embedded", "gsm8k-cot", "gsm8k", "math", "humaneval", "mbpp"}
