"""Compare the time of a step with that of another version of the package, for prompts of many lengths, on a CPU.

python -m d3mlx.research.experiments.prompt_length --before /other/.venv/bin/python

The bundled model commits one token per step, so every step computes about the same number of rows, and only what they
attend to grows with the prompt. The time without attention is that of the same steps with attention replaced by its
queries. Both versions are measured alternately, as in `speed`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import numpy as np
import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.research.experiments.pages import table
from d3mlx.research.experiments.speed import Version
from d3mlx.research.script import script

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)


def compare(
    before: Annotated[str, typer.Option(help="Python of the environment with the other version.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of each measurement.")] = 40,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each length; the best counts.")] = 3,
) -> None:
    """Print microseconds per step, outside attention and in it, for both versions."""
    versions = [Version(before), Version(sys.executable)]
    rest, attention = np.full((2, 2, len(LENGTHS)), np.inf)
    rows = 0
    for _ in range(repeats):
        for i, length in enumerate(LENGTHS):
            for which, version in enumerate(versions):
                found = version.call("step_time", model=EMBEDDED, prompt=length, steps=steps)
                rows = found["rows"]
                rest[which, i] = min(rest[which, i], found["rest"])
                attention[which, i] = min(attention[which, i], found["whole"] - found["rest"])
    lines = [
        [str(length), *(f"{1e6 * seconds:.0f}" for seconds in (*rest[:, i], *attention[:, i]))]
        for i, length in enumerate(LENGTHS)
    ]
    slopes = [float(np.polyfit(LENGTHS, times, 1)[0]) for times in attention]
    header = ["prompt", "outside attention, before", "after", "attention, before", "after"]
    typer.echo(f"Microseconds of a step of {rows} rows:\n\n{table(header, lines)}\n")
    typer.echo(
        f"Slope of attention: {1e9 * slopes[0]:.0f} nanoseconds per token of the prompt before, "
        f"{1e9 * slopes[1]:.0f} after, ratio {slopes[1] / slopes[0]:.2f}."
    )


if __name__ == "__main__":
    script(compare)
