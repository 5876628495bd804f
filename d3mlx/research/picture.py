"""A still picture of the live view, from a real run of the embedded model.

python -m d3mlx.research.picture docs/live.svg
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from d3mlx import Generation, Selective, load
from d3mlx.cli.render.live import View
from d3mlx.research.script import script

QUESTION = (
    "Mia makes 10 pencils on each of 6 days and Noah makes 12 on each of 2 days. They share them all among 6 friends. "
    "How many pencils does each friend get?"
)
WIDTH = 92
MOMENTS = (0.15, 0.5, 0.8)
"""The shares of a run's forwards after which a frame is kept; the finished answer follows them."""


def draw(
    out: Annotated[Path, typer.Argument(help="SVG file to write.")],
    prompt: Annotated[str, typer.Argument(help="What the model is asked.")] = QUESTION,
) -> None:
    """Run once to know how many forwards it takes, once more to keep frames of it."""
    model, tokenizer = load()
    chat = [{"role": "user", "content": prompt}]

    def generation() -> Generation:
        return Generation(model, tokenizer, chat, Selective())

    forwards = sum(1 for _ in generation())
    kept = {max(0, round(share * forwards) - 1) for share in MOMENTS}
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(f'[bold green]$[/] d3mlx generate "{prompt}"\n')
    run = generation()
    view = View(run, tokenizer, "demonstration model · selective")
    for step in run:
        view.take(step)
        if step.index in kept:
            console.print(view)
    view.over = True
    console.print(view)
    stats = view.latest.stats if view.latest else None
    if stats:
        console.print(
            f"Denoising: {stats.forwards} forwards, {stats.tokens_per_forward:.2f} tokens/forward, "
            f"{stats.rows_per_token:.1f} rows/token"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(console.export_svg(title="d3mlx"), encoding="utf-8")


if __name__ == "__main__":
    script(draw)
