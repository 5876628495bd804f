"""Answers as models write them, with what they mean. Each kind has right answers and wrong ones that look alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
