"""Where the time of a step goes: marks in the decode loop that cost nothing until somebody asks for a profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import mlx.core as mx

Stage = Literal["plan", "forward", "acceptance", "commit", "consumers"]
"""plan: which rows. forward: the model on them, head included. acceptance: token statistics and which tokens commit,
with the read by the host. commit: the canvas, and the Step. consumers: whoever is handed the Step."""

STAGES: tuple[Stage, ...] = get_args(Stage)


class Profiler:
    """What the decode loop tells of its progress; this one does not listen."""

    def begin(self) -> None:
        """A run starts."""

    def mark(self, stage: Stage, arrays: Sequence[mx.array] = ()) -> None:
        """The end of a stage of a step; `arrays` are what it leaves on the device, perhaps not computed yet."""


class Profile(Profiler):
    """Seconds by stage, over all steps of all runs.

    After the forward the host waits for its logits, which a run without a profile does not: without that, the device's
    time would all be counted where the host first reads a result. So the sum is a little longer than a run's time.
    clock: the time by which it counts, in seconds; by default what passes on the wall.
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
    """Let the device finish these arrays."""
    mx.eval(list(arrays))


SILENT = Profiler()
CURRENT: ContextVar[Profiler] = ContextVar("stages")


def current() -> Profiler:
    """What a run that starts now reports to."""
    return CURRENT.get(SILENT)


@contextmanager
def profiled(profile: Profile | None) -> Iterator[None]:
    """Runs that start inside report to `profile`; None changes nothing."""
    token = CURRENT.set(profile or current())
    try:
        yield
    finally:
        CURRENT.reset(token)
