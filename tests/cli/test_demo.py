"""The demonstration: what people see first."""

from __future__ import annotations

import json
from typing import Any

from d3mlx.data.stories.stories import problem


def test_three_decoders_on_fresh_problems(d3mlx: Any) -> None:
    done = d3mlx("demo", "--seed", "3", "--count", "2", "--json")
    assert (done.status, done.err) == (0, "")
    shown = [json.loads(line) for line in done.out.splitlines()]
    expected = [problem(index, "held-out", 3) for index in range(2)]
    assert [(one["question"], one["answer"]) for one in shown] == [(one.question, one.answer) for one in expected]
    for one in shown:
        slow, *fast = one["results"]
        assert slow["decoder"] == "one token per step"
        for result in one["results"]:
            assert result["correct"] == (f"answer is {one['answer']}." in result["text"])
        assert all(result["forwards"] < slow["forwards"] / 2 and result["rows"] < slow["rows"] for result in fast)
    again = [json.loads(line) for line in d3mlx("demo", "--seed", "3", "--count", "2", "--json").out.splitlines()]
    for before, after in zip(shown, again, strict=True):
        pairs = zip(before["results"], after["results"], strict=True)
        assert all(old | {"seconds": 0} == new | {"seconds": 0} for old, new in pairs)


def test_without_a_terminal_it_is_a_table(d3mlx: Any) -> None:
    done = d3mlx("demo", "--seed", "3")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == problem(0, "held-out", 3).question
    assert [line.split("  ")[0] for line in lines[-3:]] == ["one token per step", "fast-dllm", "selective"]
    assert "\x1b" not in done.out
