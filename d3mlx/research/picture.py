"""Draw an animated picture of the live view, from a real run of the demonstration model.

python -m d3mlx.research.picture docs/live.svg
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from d3mlx import Generation, Selective, load
from d3mlx.cli.render.live import View
from d3mlx.research.script import script

QUESTION = (
    "Mia makes 10 pencils on each of 6 days and Noah makes 12 on each of 2 days. They share them all among 6 friends. "
    "How many pencils does each friend get?"
)
WIDTH, LINES = 92, 10
FRAME_SECONDS, LAST_SECONDS = 0.4, 4.0
"""Seconds for which a frame is shown, and the finished answer."""


def frame(number: int, prompt: str, *parts: RenderableType) -> str:
    """Return one frame as SVG: the command, the canvas, and blank lines up to the height of all frames."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(f'[bold green]$[/] d3mlx generate "{prompt}"\n')
    for part in parts:
        console.print(part)
    text = console.export_text(clear=False)
    console.print(Text("\n" * (LINES - text.count("\n") - 1)))
    return console.export_svg(title="d3mlx", unique_id=f"f{number}")


def animated(frames: list[str]) -> str:
    """Return frames of the same size as one SVG that shows them in a loop."""
    box = re.search(r'viewBox="([^"]+)"', frames[0])
    assert box is not None
    total = FRAME_SECONDS * (len(frames) - 1) + LAST_SECONDS
    share = 100 * FRAME_SECONDS / total
    rules = []
    for number in range(len(frames)):
        begin, end = share * number, 100 if number == len(frames) - 1 else share * (number + 1)
        rules.append(
            f"@keyframes k{number}{{0%,{begin:.3f}%{{visibility:hidden}}{begin + 0.001:.3f}%,{end:.3f}%"
            f"{{visibility:visible}}{'' if end == 100 else f'{end + 0.001:.3f}%,100%{{visibility:hidden}}'}}}"
            f".k{number}{{animation:k{number} {total:.1f}s step-end infinite}}"
        )
    groups = "".join(f'<g class="k{number}">{svg}</g>' for number, svg in enumerate(frames))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box[1]}" role="img" '
        f'aria-label="The live view of d3mlx"><style>{"".join(rules)}</style>{groups}</svg>\n'
    )


def draw(
    out: Annotated[Path, typer.Argument(help="SVG file to write.")],
    prompt: Annotated[str, typer.Argument(help="Question for the model.")] = QUESTION,
) -> None:
    """Decode one answer and write a picture with a frame per forward."""
    model, tokenizer = load()
    run = Generation(model, tokenizer, [{"role": "user", "content": prompt}], Selective())
    view = View(run, tokenizer, "demonstration model · selective")
    frames = [frame(0, prompt, view)]
    for step in run:
        view.take(step)
        frames.append(frame(len(frames), prompt, view))
    view.over = True
    stats = run.stats
    summary = (
        f"Denoising: {stats.forwards} forwards, {stats.tokens_per_forward:.2f} tokens/forward, "
        f"{stats.rows_per_token:.1f} rows/token"
    )
    frames.append(frame(len(frames), prompt, view, summary))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(animated(frames), encoding="utf-8")


if __name__ == "__main__":
    script(draw)
