"""Measure a student with logits divided by several temperatures, on validation problems.

    python -m d3mlx.research.experiments.temperature FOLDER [--count 300]

`builds/student.py` divides the logits of the student by the temperature that was chosen from such a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3mlx.evaluate.records import score
from d3mlx.evaluate.run import EvalModel, solve
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.research.abilities import DECODERS
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.shipped import float_checkpoint
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

TEMPERATURES = (1.0, 1.15, 1.3, 1.5, 1.75)


def measure(
    folder: Annotated[Path, typer.Argument(help="Folder of the model.")],
    count: Annotated[int, typer.Option(min=1, help="Validation problems.")] = 300,
) -> None:
    """Print accuracy, TPF and RPT of the default decoder by temperature."""
    model, tokenizer, _ = float_checkpoint(folder)
    task, logits = Embedded(TaskOptions(), "llada", Kind(split="validation")), model.lm_head.weight
    rows = []
    for temperature in TEMPERATURES:
        model.lm_head.weight = logits / temperature
        subject = EvalModel(model, tokenizer, max_tokens=CANVAS)
        total = score(list(solve(subject, task, DECODERS["selective"], range(count))))
        figures = f"{total.accuracy:.1%}", f"{total.tokens_per_forward:.2f}", f"{total.rows_per_token:.1f}"
        rows.append([f"{temperature:g}", *figures])
        typer.echo(f"temperature {temperature:g} measured", err=True)
    typer.echo(table(["temperature", "correct", "TPF", "RPT"], rows))


if __name__ == "__main__":
    script(measure)
