"""The problems that the tables of decoders are about."""

from __future__ import annotations

from d3mlx.data.problems import problem
from d3mlx.data.tokens import build_tokenizer
from d3mlx.experiments.decoders import TASKS


def test_the_long_task_has_the_first_problems_with_long_answers() -> None:
    tokenizer, long_ones = build_tokenizer(), TASKS["long"]
    lengths = [len(tokenizer.encode(problem(i, "held-out").solution, add_special_tokens=False)) for i in range(40)]
    wanted = [i for i, length in enumerate(lengths) if length > long_ones.above]
    assert wanted
    assert long_ones.indices(len(wanted)) == wanted
    assert TASKS["short"].indices(3) == [0, 1, 2]
