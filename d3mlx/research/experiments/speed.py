"""Compare the speed of two versions of the package on a CPU, one problem after another, alternately.

python -m d3mlx.research.experiments.speed --before /other/.venv/bin/python [--count 60]

Each version runs in its own environment, in a process that stays. Both decode the same problem with the same decoder
directly after each other, and which one begins alternates, so other work on the machine affects both alike. Times are
processor seconds. Preload a fast BLAS with one thread for figures that resemble PyTorch's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx.checkpoints.loader import EMBEDDED, TEACHER
from d3mlx.data.stories.stories import problem
from d3mlx.errors import ConfigError
from d3mlx.research.experiments import speed_worker
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

MODELS = {"student": EMBEDDED, "teacher": TEACHER}


class Version:
    """A process that decodes with one version of the package."""

    def __init__(self, python: str):
        self.python = python
        # The environment's own package is imported, wherever this runs: the script's folder is not on its path.
        command = [python, "-P", str(Path(speed_worker.__file__))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def call(self, function: str, **task: Any) -> dict[str, Any]:
        """Return the result of a function of `speed_worker`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"function": function, **task}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ConfigError(f"The process of {self.python} has ended. Its error is above.")
        result: dict[str, Any] = json.loads(line)
        return result


@dataclass
class Total:
    """Totals of one version with one decoder."""

    tokens: int = 0
    forwards: int = 0
    seconds: float = 0.0
    texts: list[str] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        self.tokens += result["tokens"]
        self.forwards += result["forwards"]
        self.seconds += result["seconds"]
        self.texts.append(result["text"])

    @property
    def speed(self) -> float:
        """Return tokens per processor second."""
        return self.tokens / self.seconds


def measured(versions: list[Version], model: str, count: int) -> dict[str, list[Total]]:
    """Return the totals of both versions by decoder, over the first `count` held-out problems."""
    totals = {name: [Total(), Total()] for name in speed_worker.DECODERS}
    for index in (0, *range(count)):
        if index == 0:
            # The first problem is solved twice. Only the second time counts, so that warm-up costs nothing.
            totals = {name: [Total(), Total()] for name in speed_worker.DECODERS}
        for name in totals:
            for which in (0, 1) if index % 2 else (1, 0):
                question = problem(index, "held-out").question
                totals[name][which].add(versions[which].call("solve", model=model, decoder=name, question=question))
    return totals


def compare(
    before: Annotated[str, typer.Option(help="Python of the environment with the other version.")],
    count: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 60,
) -> None:
    """Solve problems with both versions, and print a table of tokens per processor second."""
    versions = [Version(before), Version(sys.executable)]
    rows = []
    for model, folder in MODELS.items():
        for name, (first, second) in measured(versions, folder, count).items():
            same = sum(a == b for a, b in zip(first.texts, second.texts, strict=True))
            forwards = f"{first.forwards} / {second.forwards}"
            rows.append([model, name, f"{first.speed:.0f}", f"{second.speed:.0f}"])
            rows[-1] += [f"{second.speed / first.speed:.2f}", f"{same} of {count}", forwards]
            typer.echo(f"{rows[-1]}", err=True)
    header = ["model", "decoder", "before", "after", "ratio", "same answers", "forwards before / after"]
    typer.echo(f"Tokens per processor second, {count} held-out problems:\n\n{table(header, rows)}")


if __name__ == "__main__":
    script(compare)
