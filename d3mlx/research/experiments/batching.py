"""Measure what shared forwards save: problems one at a time and several at once, for each decoder.

python -m d3mlx.research.experiments.batching [--count 48] [--batch-size 8]

A problem arrives before every second forward of the batch, so requests join and leave all the time. Groups of problems
are decoded alone and together, alternately, so that other work on the machine slows both. On a CPU, seconds are
processor time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from d3mlx import D3LLM, FastDLLM, Generation, Selective, Vanilla, load
from d3mlx.batch import MAX_BATCH, Batcher
from d3mlx.checkpoints.loader import TEACHER
from d3mlx.data.stories.stories import problem
from d3mlx.decoding.decoder import Preset
from d3mlx.distill.trajectories import Teacher
from d3mlx.engine import follow
from d3mlx.request import Request
from d3mlx.research.batches import CANVAS
from d3mlx.research.experiments.journal import CLOCK
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

DECODERS: dict[str, Preset] = {
    "selective": Selective(),
    "d3llm": D3LLM(),
    "d3llm, no cache": D3LLM("none"),
    "fast-dllm": FastDLLM(),
    "vanilla": Vanilla(),
    "trajectories": Teacher(block_size=8),
    "trajectories, selective cache": Teacher(block_size=8, cache="selective"),
}
GROUP = 16
"""Problems decoded alone before the same ones are decoded together."""

EVERY = 2
"""Forwards of the batch per arrival of a request."""


@dataclass
class Run:
    """Totals of one way to decode, and the tokens of every answer."""

    forwards: int = 0
    seconds: float = 0.0
    answers: list[list[int]] = field(default_factory=list)

    def add(self, requests: list[Request], forwards: int, seconds: float) -> None:
        self.forwards += forwards
        self.seconds += seconds
        self.answers += [request.canvas.answer.tolist() for request in requests]


def alone(model: Any, requests: list[Request], run: Run) -> None:
    """Decode one request after another."""
    began = CLOCK()
    forwards = sum(1 for request in requests for _ in follow(model, request))
    run.add(requests, forwards, CLOCK() - began)


def together(model: Any, requests: list[Request], run: Run, batch_size: int) -> None:
    """Decode requests as they arrive, at most `batch_size` at once."""
    began = CLOCK()
    batcher, forwards, arriving = Batcher(model, batch_size), 0, list(requests)
    while arriving or batcher.busy:
        if arriving and (not batcher.busy or forwards % EVERY == 0):
            batcher.submit(arriving.pop(0))
        forwards += bool(batcher.step())
    run.add(requests, forwards, CLOCK() - began)


def measure(
    count: Annotated[int, typer.Option(min=1, help="Problems per decoder.")] = 48,
    batch_size: Annotated[int, typer.Option(min=1, help="Maximum number of requests in a forward.")] = MAX_BATCH,
) -> None:
    """Decode held-out problems with every decoder, alone and together, and print a table."""
    model, tokenizer = load(TEACHER)
    rows = []
    for name, preset in DECODERS.items():

        def requests(first: int, preset: Preset = preset) -> list[Request]:
            indices = range(first, min(first + GROUP, count))
            chats = [[{"role": "user", "content": problem(index, "held-out").question}] for index in indices]
            return [Generation(model, tokenizer, chat, preset, max_tokens=CANVAS).request for chat in chats]

        separate, shared = Run(), Run()
        for first in range(0, count, GROUP):
            alone(model, requests(first), separate)
            together(model, requests(first), shared, batch_size)
        same = sum(a == b for a, b in zip(separate.answers, shared.answers, strict=True))
        figures = [f"{separate.forwards}", f"{shared.forwards}", f"{separate.seconds:.2f}", f"{shared.seconds:.2f}"]
        rows.append([name, *figures, f"{separate.seconds / shared.seconds:.2f}", f"{same} of {count}"])
        typer.echo(f"{name} measured", err=True)
    header = ["decoder", "forwards alone", "together", "seconds alone", "together", "ratio", "same answers"]
    typer.echo(table(header, rows))


if __name__ == "__main__":
    script(measure)
