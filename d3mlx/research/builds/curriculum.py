"""The batches of the teacher's training, by step."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from d3mlx.research.batches import QUESTIONS, Batch, Source
from d3mlx.research.hole_batches import Holes


@dataclass(frozen=True)
class Phase:
    """A phase that ends before step `until`. Its problems have at most `operations` operations.

    shares: shares of the kinds of batches. recall: pairs to copy. drills: equations alone. chained: equations of one
    problem together. continued: problems with the next result masked. blocks: problems with a visible prefix and
    everything after one block masked. holes: solutions with holes. pages: two problems in one prompt. worked:
    conversations. problems: masks anywhere.
    """

    until: int
    operations: int
    shares: Mapping[str, float] = field(default_factory=dict)


LAST_SHARES = {
    "blocks": 0.3,
    "continued": 0.2,
    "drills": 0.15,
    "problems": 0.14,
    "holes": 0.1,
    "pages": 0.07,
    "worked": 0.04,
}

PHASES = (
    Phase(600, 1, {"recall": 1.0}),
    Phase(1500, 2, {"problems": 0.55, "chained": 0.25, "recall": 0.2}),
    Phase(2500, 4, {"problems": 0.5, "chained": 0.15, "drills": 0.3, "recall": 0.05}),
    Phase(2750, 4, {"problems": 0.2, "blocks": 0.2, "drills": 0.6}),
    Phase(4500, 4, {"problems": 0.25, "blocks": 0.4, "continued": 0.2, "drills": 0.15}),
    Phase(10**9, 4, LAST_SHARES),
)
"""Recall to learn copying, chained equations for the wording, arithmetic, then everything. The last phase has no end.

Drills alone do not teach the arithmetic of problems, where a copy of the result is often visible further on.
Therefore a later phase often masks the rest of a solution. Finally masks are anywhere, or as block decoders see them,
so that equations are also correct when decoders reach them in another order.
"""


class Curriculum:
    """The training batches by step. size: sequences of a batch. Batches of two problems have half as many."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        size: int,
        seed: int = 0,
        phases: tuple[Phase, ...] = PHASES,
    ):
        self.phases, self.seed = phases, seed
        self.source = Source(tokenizer, size, seed)
        self.holes = Holes(self.source)
        self.pages = Source(tokenizer, max(1, size // QUESTIONS), seed, QUESTIONS)

    def kind(self, step: int) -> str:
        """Return the kind of batch of a step."""
        shares = self.phase(step).shares
        rng = random.Random(f"kind/{self.seed}/{step}")
        return rng.choices(list(shares), list(shares.values()))[0]

    def phase(self, step: int) -> Phase:
        """Return the phase of a step."""
        return next(phase for phase in self.phases if step < phase.until)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        kind, operations, source = self.kind(step), self.phase(step).operations, self.source
        if kind == "recall":
            return source.recall(step)
        if kind in ("drills", "chained"):
            return source.drills(step, chained=kind == "chained")
        if kind == "holes":
            return self.holes.batch(step)
        if kind == "pages":
            # Half of the steps are masked as block decoders see them.
            return (self.pages.blocks if step % 2 else self.pages.problems)(step, operations)
        makers = {
            "continued": source.continued,
            "blocks": source.blocks,
            "worked": source.worked,
            "problems": source.problems,
        }
        return makers[kind](step, operations)
