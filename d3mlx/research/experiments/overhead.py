"""What the decode loop costs beside the model's forward, at the shape of a real model's layers.

python -m d3mlx.research.experiments.overhead [--steps N]

Random weights are never confident of a token, so the rule commits in each step as many tokens as a run of the embedded
teacher did: the most confident ones, by the factor rule on the device and the engine's own loop. The decoders take
turns step by step, so that other work on the machine slows down all of them alike. On a CPU, times are processor time.
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
from d3mlx.data.problems import problem
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
    "selective": Selective(row_multiple=32),
    "selective, 8-bit K/V": Selective(row_multiple=32, kv_bits=8),
    "delayed": D3LLM(),
    "no cache": D3LLM("none"),
}
REPEATS = 20
"""Of what is timed apart; the median counts."""


def recorded(tokens: int) -> list[int]:
    """How many tokens each step commits when the embedded teacher solves problems, until there are `tokens` of them."""
    model, tokenizer = load(TEACHER)
    commits: list[int] = []
    for index in range(tokens):
        question = [{"role": "user", "content": problem(index, "held-out").question}]
        commits += [len(step.positions) for step in Generation(model, tokenizer, question, Selective(row_multiple=8))]
        if sum(commits) >= tokens:
            break
    return commits


@dataclass(frozen=True)
class Replay(Stateless):
    """Commits the most confident positions of a step, as many as the trace says, and one as long as it says nothing.

    The factor rule takes the n-th where p_n >= 1 - factor / (n + 1): with n + 1.01, where p is next to 0, the first n.
    """

    counts: Iterator[int]
    filtered_statistics: bool = field(default=False)

    def rule(self, candidates: Candidates, state: None) -> tuple[Rule, None]:
        return Rule("factor", next(self.counts) + 1.01), None


class Run:
    """One decoder on the random model, and where its time went."""

    def __init__(self, model: Any, preset: Preset, trace: list[int]):
        prompt = np.random.default_rng(0).integers(0, SIZES.vocab - 2, PROMPT).tolist()
        self.canvas = Canvas.for_prompt(prompt, NEW, model.args.mask_token_id)
        self.decoder = replace(preset.build("llada"), acceptance=Replay(chain(trace, cycle([1]))))
        self.profile = Profile(CLOCK)
        self.rows: list[int] = []
        self.steps = decode(model, self.canvas, self.decoder)

    def first(self) -> None:
        """The pass over everything that every decoder begins with, which does not count."""
        with profiled(self.profile):
            next(self.steps)
        self.profile.seconds = dict.fromkeys(STAGES, 0.0)
        self.profile.steps = 0

    def step(self) -> Step | None:
        """One more step; None at the end."""
        step = next(self.steps, None)
        if step is not None:
            self.rows.append(step.rows)
        return step

    def seconds(self, stage: Any) -> float:
        """A step's mean."""
        return self.profile.seconds[stage] / self.profile.steps


def median(act: Callable[[], list[mx.array]]) -> float:
    """Seconds until the arrays that `act` asks for are there."""
    samples = []
    for _ in range(REPEATS):
        began = CLOCK()
        mx.eval(act())
        samples.append(CLOCK() - began)
    return float(np.median(samples))


def writing(decoder: Decoder, rows: int) -> float:
    """Return the seconds in which a step's rows are written into the cache: K and V of each layer and the last hidden
    rows. Where K and V are quantized, all of them are dequantized too."""
    length, heads, width = PROMPT + NEW, SIZES.kv_heads, SIZES.hidden // SIZES.kv_heads
    cache = KVCache(SIZES.layers, decoder.cache.cached, decoder.kv)
    everything = RowIndex(np.arange(length, dtype=np.int32), length)
    some = RowIndex((np.arange(rows) * length // rows).astype(np.int32), length)
    fresh, hidden = mx.ones((1, heads, rows, width)), mx.ones((1, rows, SIZES.hidden))
    whole = mx.zeros((1, heads, length, width))
    for layer in cache.open(everything, np.zeros(length, np.int32)):
        layer.attend(whole[:, :, :1], whole, whole, 1.0)
    cache.write_hidden(everything, mx.zeros((1, length, SIZES.hidden)))
    mx.eval(fresh, hidden)

    def act() -> list[mx.array]:
        written: list[mx.array] = []
        for layer in cache.open(some, np.zeros(rows, np.int32)):
            if isinstance(layer, QuantizedLayer):
                layer.write([*layer.quantize(fresh), *layer.quantize(fresh)])
                written += [layer.dequantize(layer.arrays[:3]), layer.dequantize(layer.arrays[3:])]
            elif isinstance(layer, CachedLayer):
                layer.write([fresh, fresh])
                written += layer.arrays
        return [*written, cache.write_hidden(some, hidden)]

    return median(act)


def line(name: str, run: Run) -> list[str]:
    """A decoder's row of the table: milliseconds a step, and the share of all but the model's forward."""
    rows = int(np.median(run.rows))
    cache = writing(run.decoder, rows)
    forward = run.seconds("forward") - cache
    around = [run.seconds("plan"), cache, run.seconds("acceptance"), run.seconds("commit")]
    share = sum(around) / (forward + sum(around))
    times = [f"{1000 * seconds:.2f}" for seconds in (forward, *around)]
    return [name, str(run.profile.steps), f"{np.mean(run.rows):.0f}", *times, f"{100 * share:.1f} %"]


def measure(
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each decoder after the first; all, if not given.")
    ] = None,
) -> None:
    """Decode with every decoder side by side, and print where the time of a step goes."""
    trace = recorded(NEW)
    model = random_model(SIZES)
    runs = {name: Run(model, preset, trace) for name, preset in DECODERS.items()}
    for run in runs.values():
        run.first()
    left = dict(runs)
    for _ in range(steps or NEW):
        for name, run in list(left.items()):
            if run.step() is None:
                del left[name]
        if not left:
            break
    header = ["rows of a step", "steps", "rows", "forward", "plan", "cache"]
    header += ["statistics and acceptance", "commit", "all but the forward"]
    typer.echo(f"Milliseconds a step; prompt of {PROMPT}, {NEW} new tokens, {SIZES}; trace {trace}:\n")
    typer.echo(table(header, [line(name, run) for name, run in runs.items()]))


if __name__ == "__main__":
    script(measure)
