"""Which batch the embedded model sees at which step."""

from __future__ import annotations

import random
from dataclasses import dataclass

from d3mlx.data.batches import Batch, Source


@dataclass(frozen=True)
class Phase:
    """Steps before `until`: problems of at most `operations` steps, and equations alone for a share of the batches."""

    until: int
    operations: int
    drills: float
    chained: bool = False


@dataclass(frozen=True)
class Curriculum:
    """Recall first, which teaches copying; then the wording, with chained equations; then arithmetic; then both.

    The wording is learned within some two thousand steps and arithmetic takes several times as many, so the share of
    drills is highest in the middle. The last phase has no end.
    """

    recall_steps: int = 700
    phases: tuple[Phase, ...] = (
        Phase(until=2000, operations=2, drills=0.35, chained=True),
        Phase(until=3750, operations=4, drills=0.2, chained=True),
        Phase(until=4500, operations=4, drills=0.7, chained=True),
        Phase(until=11000, operations=4, drills=0.7),
        Phase(until=10**9, operations=4, drills=0.3),
    )

    def batch(self, source: Source, step: int) -> Batch:
        if step < self.recall_steps:
            return source.recall(step)
        phase = next(phase for phase in self.phases if step < phase.until)
        if random.Random(f"drill?/{source.seed}/{step}").random() < phase.drills:
            return source.drills(step, phase.chained)
        return source.problems(step, phase.operations)
