"""Measure the time of the decode loop beside the model's forward, at the width of a real model.

python -m d3mlx.research.experiments.overhead [--steps N]

Random weights are never confident, so an ordinary rule would commit too few tokens. Instead, each step commits the most
confident tokens, as many as the embedded teacher did in a recorded run. The engine's own loop and the factor rule on
the device do this. The decoders take turns step by step, so that other work on the machine affects all alike. On a CPU,
times are processor times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, cycle
from typing import Annotated, Any

import mlx.core as mx
import numpy as np
import typer

from d3mlx import Generation, load
from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.cache import CachedLayer, KVCache, QuantizedLayer, RowIndex
from d3mlx.canvas import Canvas
from d3mlx.checkpoints.loader import TEACHER
from d3mlx.data.stories.stories import problem
from d3mlx.decoding.acceptance import Candidates, Stateless
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Decoder, Preset
from d3mlx.decoding.selective import Selective
from d3mlx.engine import decode
from d3mlx.kernels.accept_blocks import Rule
from d3mlx.profiling import STAGES, Profile, profiled
from d3mlx.request import Step
from d3mlx.research.experiments.journal import CLOCK
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

SIZES = Sizes("llada", layers=8, hidden=1024, heads=16, kv_heads=16, ff=2816, vocab=32768)
PROMPT, NEW = 512, 256
DECODERS: dict[str, Preset] = {
    "selective": Selective(),
    "selective, 8-bit K/V": Selective(kv_bits=8),
    "delayed": D3LLM(),
    "no cache": D3LLM("none"),
}
REPEATS = 20
"""Repetitions of what is timed alone. The median counts."""


def recorded(tokens: int) -> list[int]:
    """Return the tokens that the embedded teacher commits in each step, until their sum is at least `tokens`."""
    model, tokenizer = load(TEACHER)
    commits: list[int] = []
    for index in range(tokens):
        question = [{"role": "user", "content": problem(index, "held-out").question}]
        commits += [len(step.positions) for step in Generation(model, tokenizer, question, Selective())]
        if sum(commits) >= tokens:
            break
    return commits


@dataclass(frozen=True)
class Replay(Stateless):
    """Acceptance that commits the most confident positions of a step. counts: the number of positions per step.

    The factor rule accepts the n-th position if p_n >= 1 - factor / (n + 1). With a factor of n + 1.01 and p near 0,
    it accepts exactly n positions.
    """

    counts: Iterator[int]
    filtered_statistics: bool = field(default=False)

    def rule(self, candidates: Candidates, state: None) -> tuple[Rule, None]:
        return Rule("factor", next(self.counts) + 1.01), None


class Run:
    """One decoder on the random model, with the time of each stage."""

    def __init__(self, model: Any, preset: Preset, trace: list[int]):
        prompt = np.random.default_rng(0).integers(0, SIZES.vocab - 2, PROMPT).tolist()
        self.canvas = Canvas.for_prompt(prompt, NEW, model.args.mask_token_id)
        self.decoder = replace(preset.build("llada"), acceptance=Replay(chain(trace, cycle([1]))))
        self.profile = Profile(CLOCK)
        self.rows: list[int] = []
        self.steps = decode(model, self.canvas, self.decoder)

    def first(self) -> None:
        """Run the first pass over prompt and canvas, and reset the times, because it does not count."""
        with profiled(self.profile):
            next(self.steps)
        self.profile.seconds = dict.fromkeys(STAGES, 0.0)
        self.profile.steps = 0

    def step(self) -> Step | None:
        """Run one step and return it, or None at the end."""
        step = next(self.steps, None)
        if step is not None:
            self.rows.append(step.rows)
        return step

    def seconds(self, stage: Any) -> float:
        """Return the mean seconds per step of a stage."""
        return self.profile.seconds[stage] / self.profile.steps


def median(act: Callable[[], list[mx.array]]) -> float:
    """Return the median seconds in which the arrays that `act` returns are computed."""
    samples = []
    for _ in range(REPEATS):
        began = CLOCK()
        mx.eval(act())
        samples.append(CLOCK() - began)
    return float(np.median(samples))


def writing(decoder: Decoder, rows: int) -> float:
    """Return the seconds to write a step's rows into the cache: K and V of each layer, and the last hidden rows.

    Quantized K and V are also dequantized completely, as in a step.
    """
    length, heads, width = PROMPT + NEW, SIZES.kv_heads, SIZES.hidden // SIZES.kv_heads
    cache = KVCache(SIZES.layers, decoder.cache.cached, decoder.kv)
    all_rows = RowIndex(np.arange(length, dtype=np.int32), length)
    step_rows = RowIndex((np.arange(rows) * length // rows).astype(np.int32), length)
    fresh, hidden = mx.ones((2, 1, heads, rows, width)), mx.ones((1, rows, SIZES.hidden))
    zeros = mx.zeros((2, 1, heads, length, width))
    for layer in cache.open(all_rows, np.zeros(length, np.int32)):
        layer.attend(zeros[0, :, :, :1], zeros, 1.0)
    cache.write_hidden(all_rows, mx.zeros((1, length, SIZES.hidden)))
    mx.eval(fresh, hidden)

    def act() -> list[mx.array]:
        written: list[mx.array] = []
        for layer in cache.open(step_rows, np.zeros(rows, np.int32)):
            if isinstance(layer, QuantizedLayer):
                layer.write(layer.quantize(fresh))
                written.append(layer.dequantize(layer.arrays))
            elif isinstance(layer, CachedLayer):
                layer.write([fresh])
                written += layer.arrays
        return [*written, cache.write_hidden(step_rows, hidden)]

    return median(act)


def line(name: str, run: Run) -> list[str]:
    """Return a decoder's row of the table: milliseconds per step, and the share of everything but the forward."""
    rows = int(np.median(run.rows))
    cache = writing(run.decoder, rows)
    forward = run.seconds("forward") - cache
    around = [run.seconds("plan"), cache, run.seconds("acceptance"), run.seconds("commit")]
    share = sum(around) / (forward + sum(around))
    times = [f"{1000 * seconds:.2f}" for seconds in (forward, *around)]
    return [name, str(run.profile.steps), f"{np.mean(run.rows):.0f}", *times, f"{100 * share:.1f} %"]


def measure(
    steps: Annotated[
        int | None, typer.Option(min=1, show_default="all", help="Steps of each decoder after the first.")
    ] = None,
) -> None:
    """Decode with every decoder, and print the time of each stage of a step."""
    trace = recorded(NEW)
    model = random_model(SIZES)
    runs = {name: Run(model, preset, trace) for name, preset in DECODERS.items()}
    for run in runs.values():
        run.first()
    unfinished = dict(runs)
    for _ in range(steps or NEW):
        for name, run in list(unfinished.items()):
            if run.step() is None:
                del unfinished[name]
        if not unfinished:
            break
    header = ["rows of a step", "steps", "rows", "forward", "plan", "cache"]
    header += ["statistics and acceptance", "commit", "all but the forward"]
    typer.echo(f"Milliseconds per step; prompt of {PROMPT}, {NEW} new tokens, {SIZES}; trace {trace}:\n")
    typer.echo(table(header, [line(name, run) for name, run in runs.items()]))


if __name__ == "__main__":
    script(measure)
