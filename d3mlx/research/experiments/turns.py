"""Measure the second turn of a chat with and without the cache of the first turn, on bidirectional models.

    python -m d3mlx.research.experiments.turns [--count 500]

In each conversation the user asks two held-out problems. Both runs have the same first turn, so the answers to the
second problem are compared in pairs. The last run with all problems writes the table of docs/results/chat.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from d3mlx import Chat, FastDLLM, Selective, load
from d3mlx.checkpoints.loader import EMBEDDED, TEACHER
from d3mlx.data.stories.problem import is_correct
from d3mlx.data.stories.stories import problem
from d3mlx.decoding.decoder import Preset
from d3mlx.evaluate.statistics import paired_difference
from d3mlx.research.experiments.figures import ROOT
from d3mlx.research.experiments.pages import CHAT, put, table
from d3mlx.research.script import script

COUNT = 500
FIRST = 300_000
"""The first problem. No other experiment uses these problems."""

MODELS = {"student": EMBEDDED, "teacher": TEACHER}
DECODERS: dict[str, Preset] = {"selective": Selective(), "fast-dllm": FastDLLM()}


@dataclass(frozen=True)
class Turn:
    """The second turn of a conversation. rows: computed in this turn."""

    correct: bool
    text: str
    rows: int


def second_turn(chat: Chat, index: int) -> Turn:
    """Return the second turn of conversation `index` in a new chat."""
    tasks = [problem(2 * index + i, "held-out") for i in range(2)]
    for task in tasks:
        generation = chat.ask(task.question)
        for _ in generation:
            pass
        chat.keep(task.question, generation)
    return Turn(is_correct(tasks[1], generation.text), generation.text, generation.stats.rows)


def compare(model: Any, tokenizer: Any, decoder: Preset, count: int) -> list[str]:
    """Return the figures of a model and a decoder: accuracy without and with the cache, difference, and rows."""
    answers: dict[bool, list[Turn]] = {False: [], True: []}
    for index in range(FIRST, FIRST + count):
        for cached, seen in answers.items():
            seen.append(second_turn(Chat(model, tokenizer, decoder, approximate_cache=cached), index))
    without, with_cache = answers[False], answers[True]
    difference = paired_difference([turn.correct for turn in without], [turn.correct for turn in with_cache])
    changed = sum(a.text != b.text for a, b in zip(without, with_cache, strict=True))
    shares = [f"{sum(answer.correct for answer in seen) / count:.1%}" for seen in answers.values()]
    rows = [f"{sum(answer.rows for answer in seen) / count:.0f}" for seen in answers.values()]
    points = f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return [*shares, points, f"{difference.lost} / {difference.gained}", f"{changed / count:.0%}", *rows]


def measure(count: Annotated[int, typer.Option(min=1, help="Conversations per model and decoder.")] = COUNT) -> None:
    """Measure every model and decoder and print a table. With all conversations, write it to the page."""
    rows = []
    for name, folder in MODELS.items():
        loaded = load(folder)
        for decoder, preset in DECODERS.items():
            rows.append([f"{name}, {decoder}", *compare(*loaded, preset, count)])
            typer.echo(f"{rows[-1][0]} measured", err=True)
    header = [
        "Model, decoder",
        "Correct without",
        "Correct with",
        "Difference in points",
        "Lost / gained",
        "Other text",
        "Rows without",
        "Rows with",
    ]
    shown = table(header, rows)
    typer.echo(shown)
    if count == COUNT:
        put(ROOT / CHAT, "turns", shown)


if __name__ == "__main__":
    script(measure)
