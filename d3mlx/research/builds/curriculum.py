"""Which batch the teacher sees at which step."""

from __future__ import annotations

import random
from dataclasses import dataclass

from d3mlx.research.batches import Batch, Source


@dataclass(frozen=True)
class Phase:
    """Steps before `until`: problems of at most `operations` steps.

    For a share of the batches equations alone, for another problems whose next result is asked for, for a third
    problems with a finished prefix and nothing after the block at hand, for a fourth problems after worked examples.
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
    """Recall first, which teaches copying; then the wording, with chained equations; then arithmetic; then all of it.

    Arithmetic on its own does not carry over to problems by itself: there a result is mostly visible again further on,
    and its length is not given. Hence problems with the rest of the solution masked. By then every equation that is
    reached from left to right comes out right, and those that decoders reach in another order do not: then whole
    problems with masks anywhere, and at last with masks as block decoders meet them, and after worked examples. The
    last phase has no end.
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
