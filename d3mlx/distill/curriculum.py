"""Which batch the embedded model sees at which step."""

from __future__ import annotations

import random
from dataclasses import dataclass

from d3mlx.data.batches import Batch, Source


@dataclass(frozen=True)
class Curriculum:
    """Recall, then short problems, then all of them; arithmetic drills from the end of recall on."""

    recall_steps: int = 800
    short_steps: int = 2000
    short_operations: int = 2
    short_drills: float = 0.35
    full_drills: float = 0.2

    def batch(self, source: Source, step: int) -> Batch:
        if step < self.recall_steps:
            return source.recall(step)
        short = step < self.recall_steps + self.short_steps
        share = self.short_drills if short else self.full_drills
        if random.Random(f"drill?/{source.seed}/{step}").random() < share:
            return source.drills(step)
        return source.problems(step, self.short_operations if short else 4)
