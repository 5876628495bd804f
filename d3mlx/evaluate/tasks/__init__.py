"""The tasks, one per file: data format, form of the prompt, stop texts, and scores."""

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
    """Return the task `name` in the published form for a model family. Raises ConfigError, DataError."""
    if name not in TASKS:
        raise ConfigError(f"Unknown task {name!r}. Choose {', '.join(TASKS)}.")
    return TASKS[name](options or TaskOptions(), family)
