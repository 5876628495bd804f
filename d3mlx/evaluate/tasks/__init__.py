"""The tasks, one file each: prompt form, stop texts, scoring, data format."""

from __future__ import annotations

from collections.abc import Callable

from d3mlx.errors import ConfigError
from d3mlx.evaluate.tasks.base import Ask, Task, TaskOptions, Verdict
from d3mlx.evaluate.tasks.embedded import Embedded
from d3mlx.evaluate.tasks.gsm8k import ChainOfThought, FewShot
from d3mlx.evaluate.tasks.humaneval import HumanEval
from d3mlx.evaluate.tasks.math import Math
from d3mlx.evaluate.tasks.mbpp import MBPP

__all__ = ["TASKS", "Ask", "Task", "TaskOptions", "Verdict", "task"]

TASKS: dict[str, Callable[[TaskOptions, str], Task]] = {
    "embedded": Embedded,
    "gsm8k-cot": ChainOfThought,
    "gsm8k": FewShot,
    "math": Math,
    "humaneval": HumanEval,
    "mbpp": MBPP,
}


def task(name: str, family: str, options: TaskOptions | None = None) -> Task:
    """The task called `name` in the form published for a model family. Raises ConfigError, DataError."""
    if name not in TASKS:
        raise ConfigError(f"There is no task {name!r}; the tasks are {', '.join(TASKS)}.")
    return TASKS[name](options or TaskOptions(), family)
