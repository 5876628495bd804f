"""Measure a model of stories: what `abilities` measures, holes, and the text of its answers to the own questions.

python -m d3mlx.research.experiments.stories FOLDER [--count 1000]
"""

from __future__ import annotations

from typing import Annotated

import typer

from d3mlx import Selective, load
from d3mlx.data.stories.stories import problem
from d3mlx.research.abilities import COLUMNS, abilities, own_answers
from d3mlx.research.experiments.holes import FIRST, Task, measure_way
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script


def measure(
    folder: Annotated[str, typer.Argument(help="Folder of the model.")],
    count: Annotated[int, typer.Option(min=2, help="Held-out problems of each kind.")] = 1000,
) -> None:
    """Measure the model, and print tables and the answers to the own questions."""
    model, tokenizer = load(folder)
    own = own_answers(model, tokenizer)
    typer.echo(f"Own questions: {sum(answer.correct for answer in own)} of {len(own)} correct.")
    for answer in own:
        typer.echo(f"{'right' if answer.correct else 'WRONG'}: {answer.question} -> {answer.text} ({answer.right})")
    tasks = [Task.of(problem(FIRST + i, "held-out"), i) for i in range(count)]
    ways = [measure_way(model, tokenizer, Selective(), tasks, way).text() for way in ("fixed", "free")]
    typer.echo(f"\nHoles, size given and free length: {'; '.join(ways)}\n")
    typer.echo(table(COLUMNS, list(abilities(model, tokenizer, count))))


if __name__ == "__main__":
    script(measure)
