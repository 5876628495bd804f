"""Profiles of decoding: how much time each stage of a step takes. Without a profile, the marks cost almost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import mlx.core as mx

Stage = Literal["plan", "forward", "acceptance", "commit", "consumers"]
"""plan: choose the rows. forward: run the model on them, head included. acceptance: compute token statistics, choose
the tokens to commit, read them on the host. commit: update the canvas, make the Step. consumers: use the Step."""

STAGES: tuple[Stage, ...] = get_args(Stage)


class Profiler:
    """The interface that the decode loop reports its progress to. This base class ignores all reports."""

    def begin(self) -> None:
        """Start a run."""

    def mark(self, stage: Stage, arrays: Sequence[mx.array] = ()) -> None:
        """Record the end of a stage. arrays: its results on the device, which may not be computed yet."""


class Profile(Profiler):
    """Seconds per stage, over all steps of all runs.

    With a profile, the host waits for the logits after each forward. Otherwise the whole device time would be counted
    at the first read on the host. So the sum is slightly longer than a run without a profile.
    clock: function that returns the current time in seconds; by default wall-clock time.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or time.perf_counter
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self.steps = 0
        self.last = 0.0

    def begin(self) -> None:
        self.last = self.clock()

    def mark(self, stage: Stage, arrays: Sequence[mx.array] = ()) -> None:
        wait(arrays)
        now = self.clock()
        self.seconds[stage] += now - self.last
        self.last = now
        self.steps += stage == "acceptance"

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def wait(arrays: Sequence[mx.array]) -> None:
    """Wait until the device has computed these arrays."""
    mx.eval(list(arrays))


SILENT = Profiler()
CURRENT: ContextVar[Profiler] = ContextVar("stages")


def current() -> Profiler:
    """Return the profiler of a run that starts now."""
    return CURRENT.get(SILENT)


@contextmanager
def profiled(profile: Profile | None) -> Iterator[None]:
    """Make `profile` the profiler of runs that start inside the context; None keeps the current one."""
    token = CURRENT.set(profile or current())
    try:
        yield
    finally:
        CURRENT.reset(token)
