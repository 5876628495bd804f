"""The batches of the teacher's training, by step."""

from __future__ import annotations

import random
from dataclasses import dataclass

from d3mlx.research.batches import Batch, Source


@dataclass(frozen=True)
class Phase:
    """A phase that ends before step `until`. Its problems have at most `operations` operations.

    The others are shares of the batches. drills: equations alone. continued: problems with the next result masked.
    blocks: problems with a visible prefix and everything after one block masked. worked: problems after worked
    examples. The remaining batches are problems with masks anywhere. chained: keep the equations of a problem together.
    """

    until: int
    operations: int
    drills: float
    continued: float = 0.0
    blocks: float = 0.0
    worked: float = 0.0
    chained: bool = False


@dataclass(frozen=True)
class Curriculum:
    """The teacher's phases: recall to learn copying, chained equations for the wording, arithmetic, then everything.

    Drills alone do not teach the arithmetic of problems. In a problem, a copy of the result is often visible further
    on, and the length of the result is not given. Therefore a later phase masks the rest of a solution. After it,
    equations that are reached from left to right are correct, but not those that decoders reach in another order.
    Therefore masks are then anywhere, and finally as block decoders see them. The last phase has no end.
    """

    recall_steps: int = 700
    phases: tuple[Phase, ...] = (
        Phase(until=2000, operations=2, drills=0.35, chained=True),
        Phase(until=3750, operations=4, drills=0.2, chained=True),
        Phase(until=4500, operations=4, drills=0.7, chained=True),
        Phase(until=5500, operations=4, drills=0.7),
        Phase(until=12000, operations=4, drills=0.2, continued=0.45),
        Phase(until=15000, operations=4, drills=0.03, continued=0.12),
        Phase(until=10**9, operations=4, drills=0.03, continued=0.05, blocks=0.36, worked=0.2),
    )

    def batch(self, source: Source, step: int) -> Batch:
        if step < self.recall_steps:
            return source.recall(step)
        phase = next(phase for phase in self.phases if step < phase.until)
        draw = random.Random(f"drill?/{source.seed}/{step}").random()
        if draw < phase.drills:
            return source.drills(step, phase.chained)
        if draw < phase.drills + phase.continued:
            return source.continued(step, phase.operations)
        if draw < phase.drills + phase.continued + phase.blocks:
            return source.blocks(step, phase.operations)
        if draw < phase.drills + phase.continued + phase.blocks + phase.worked:
            return source.worked(step, phase.operations)
        return source.problems(step, phase.operations)
