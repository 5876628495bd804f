"""Times of the forwards of the decode loop, by number of rows: with head, token statistics, and one read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from d3mlx.bench.curve import Curve
from d3mlx.cache import RowIndex
from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.presets import preset
from d3mlx.engine import eligible_logits, forward, read, read_logits
from d3mlx.errors import ConfigError
from d3mlx.kernels.token_stats import runs_on_device, token_stats
from d3mlx.models import traits_of
from d3mlx.request import Request

ROWS = (1, 2, 4, 5, 6, 8, 9, 10, 12, 16, 24, 32, 33, 40, 48, 64, 65, 128, 256)
"""Default row counts. They surround the counts at which MLX changes kernels or starts another tile."""

DAY = 86_400
"""Seconds of a day."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median and the quartiles of `repeats` calls."""

    rows: int
    seconds: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, rows: int, samples: Sequence[float]) -> Timing:
        """Return the timing of `samples` in seconds."""
        low, median, high = np.quantile(samples, [0.25, 0.5, 0.75]).tolist()
        return cls(rows, median, low, high, len(samples))


@dataclass(frozen=True)
class Forwards:
    """Timings of forwards.

    prefill: a forward of the whole context with an empty cache. steps: forwards with a full cache, ascending by rows.
    left_out: row counts that were skipped because a smaller count took a large part of the time (`SLOW`).
    """

    context: int
    prefill: Timing
    steps: tuple[Timing, ...]
    left_out: tuple[int, ...] = ()

    @property
    def prefill_speed(self) -> float:
        """Return the prompt tokens per second."""
        return self.context / self.prefill.seconds

    @property
    def curve(self) -> Curve:
        """Return the cost curve through the medians of the steps."""
        return Curve.of((step.rows, step.seconds) for step in self.steps)


SLOW = 0.5
"""A forward that takes more than this share of the time is not repeated, and larger row counts are skipped."""

PREFILL = 0
"""Key of the prefill among the row counts."""


class Workload:
    """A request of `context` positions whose forwards compute any number of rows."""

    def __init__(self, model: Any, context: int):
        self.model, self.context = model, context
        self.request = self.fresh()

    def fresh(self) -> Request:
        """Return a request with an empty cache."""
        family, args = self.model.family, self.model.args
        decoder = preset(traits_of(family).decoder).build(family)
        size = decoder.block_size_of(args)
        canvas = Canvas.for_prompt([], self.context, args.mask_token_id, block_size=size)
        return Request(self.model, canvas, decoder)

    def prefill(self) -> None:
        """Compute every position into an empty cache, with the head on the last one."""
        self.request = self.fresh()
        self.compute(np.arange(self.context, dtype=np.int32), np.array([self.context - 1], np.int32))

    def step(self, rows: int) -> None:
        """Compute `rows` positions, spread over the context, and their statistics. Call `prefill` first."""
        positions = (np.arange(rows) * self.context // rows).astype(np.int32)
        self.compute(positions, positions)

    def compute(self, positions: Ints, eligible: Ints) -> None:
        """Run one forward of `positions` [R], with the statistics of the `eligible` positions [N], both int32."""
        self.request.rows, self.request.eligible = RowIndex(positions, self.context), eligible
        forward(self.model, [self.request])
        logits, mask_id = eligible_logits(self.model, [self.request]), self.request.canvas.mask_id
        if runs_on_device(None):
            read(token_stats(logits, mask_id))
        else:
            token_stats(read_logits(logits, None)[0], mask_id)


def timed(act: Callable[[], None]) -> float:
    """Call `act` and return the seconds it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def check_seconds(seconds: float) -> None:
    """Raise ConfigError if `seconds` is not a time above 0 and at most a day."""
    if not 0 < seconds <= DAY:
        raise ConfigError(f"--seconds must be above 0 and at most {DAY:,}, not {seconds:g}.")


def measure_forwards(
    model: Any, context: int, rows: Sequence[int], seconds: float, tell: Callable[[str], None] = lambda what: None
) -> Forwards:
    """Return timings of forwards of each count in `rows` with `context` cached positions, after about `seconds`.

    Each count is timed once, unless a smaller one is too slow. Further rounds over all counts follow until the time is
    over, so that a slowdown of a warm machine affects all counts. The first call of each count is discarded, unless it
    is slow. `tell` receives the name of each stage. Raises ConfigError.
    """
    if context < 1:
        raise ConfigError(f"Invalid --context {context}. Use 1 or more positions.")
    check_seconds(seconds)
    counts = sorted({count for count in rows if count <= context})
    if not counts or counts[0] < 1:
        raise ConfigError(f"Invalid --row-counts. Use numbers from 1 to the context of {context}.")
    work = Workload(model, context)
    end = time.perf_counter() + seconds
    acts: dict[int, Callable[[], None]] = {PREFILL: work.prefill}
    samples: dict[int, list[float]] = {}
    for count in (PREFILL, *counts):
        before = max(samples, default=PREFILL)
        if before != PREFILL and samples[before][0] > SLOW * seconds:
            break
        tell("prefill" if count == PREFILL else f"forwards of {count} rows")
        act = acts.setdefault(count, partial(work.step, count))
        first = timed(act)
        samples[count] = [first if first > SLOW * seconds else timed(act)]
    tell("further rounds")
    rounds = cycle(acts.items())
    while time.perf_counter() < end:
        count, act = next(rounds)
        samples[count].append(timed(act))
    prefill = Timing.of(context, samples.pop(PREFILL))
    steps = tuple(Timing.of(count, times) for count, times in samples.items())
    return Forwards(context, prefill, steps, tuple(count for count in counts if count not in samples))
