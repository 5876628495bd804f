"""What several commands need: numbers and sizes as people write them, and signs of life."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import typer

NOTICE = (
    "This is the built-in demonstration model: it solves word problems in the wordings that README.md shows. "
    "Use a real one with --model GSAI-ML/LLaDA-8B-Instruct."
)


def notice() -> None:
    """Say on standard error that the demonstration model answers, broken between words."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    console.print(NOTICE, soft_wrap=not console.is_terminal)


def loading(model: str) -> AbstractContextManager[Any]:
    """Show a sign of life on a terminal while gigabytes are read; a download has the hub's own progress bars."""
    from rich.console import Console

    if sys.stderr.isatty() and Path(model).is_dir():
        return Console(stderr=True).status(f"Loading {Path(model).name} ...")
    return nullcontext()


def human_size(count: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def numbers(option: str, text: str | None, kind: Callable[[str], float]) -> list[float]:
    """Return the numbers of an option like 0.1,0.3,0.5, each once. Raises BadParameter."""
    if text is None:
        return []
    try:
        return list(dict.fromkeys(kind(item) for item in text.split(",")))
    except ValueError:
        example = "64,32" if kind is int else "0.1,0.3"
        raise typer.BadParameter(f"{text!r} is no list of numbers such as {example}.", param_hint=option) from None
