"""`sdar`: block-by-block decoding with an exact cache, as SDAR publishes it (SDAR paper, inference)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import PROBABILITY, STEPS, Candidates, EndsInOrder, most_confident, quotas
from d3mlx.decoding.cache_policy import BlockCache
from d3mlx.decoding.decoder import BlockOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import AlignedBlocks
from d3mlx.errors import ConfigError
from d3mlx.kernels.accept_blocks import Rule
from d3mlx.models import traits_of
from d3mlx.models.traits import Attention

Alg = Literal["dynamic", "static", "sequential"]
Commits = Literal["fused", "separate"]
COMMITS = "Compute the final keys and values of a block together with the next block (fused) or alone (separate)."


@dataclass(frozen=True)
class PerBlock(EndsInOrder):
    """SDAR's rules. Each step of a block has a quota, the size of the block divided by the steps.

    alg: dynamic commits every token with a probability above `threshold`, and at least the quota. static commits the
    quota of the most confident tokens, sequential that of the first masks. steps: per block; None for one per position.
    capped: an answer shorter than a block has at most as many steps as tokens, so its quota is larger (LLaDA2.0).
    """

    alg: Alg = "dynamic"
    threshold: float = 0.9
    steps: int | None = None
    capped: bool = False
    filtered_statistics: bool = True
    top_k_first: ClassVar[bool] = True

    def start(self, canvas: Canvas) -> tuple[int, int, int]:
        """Return the state: the start of the current block, its step number, and the most tokens of the answer."""
        return (-1, 0, canvas.new_tokens)

    def rule(self, candidates: Candidates, state: tuple[int, int, int]) -> tuple[Rule, Any]:
        block, (opened, i, new_tokens) = candidates.active.first_full, state
        if block.start != opened:
            opened, i = block.start, 0
        size = block.end - block.start
        planned = quotas(size, min(self.steps or size, size, new_tokens if self.capped else size))
        count = planned[min(i, len(planned) - 1)]
        return self.decided(count, candidates), (opened, i + 1, new_tokens)

    def decided(self, count: int, candidates: Candidates) -> Rule:
        """Return the record of a step with this quota."""
        if self.alg == "static":
            return most_confident("confidence", count, candidates)
        if self.alg == "sequential":
            order = -np.arange(len(candidates.positions), dtype=np.float32)
            return Rule("random", most=count, noise=order)
        rule = Rule("confidence", self.threshold, inclusive=False, best_always=True)
        return rule if count == 1 else rule._replace(least=count)


@dataclass(frozen=True)
class SDAR(BlockOptions):
    """Decode block by block with an exact KV cache, by SDAR's rules."""

    attention: ClassVar[Attention] = "block-causal"

    alg: Alg | None = option(
        "Commit the tokens above the threshold (dynamic), the most likely (static), or the first (sequential).",
        "dynamic",
        common=True,
    )
    threshold: float | None = option("Commit tokens whose probability is above this.", 0.9, PROBABILITY, common=True)
    steps: int | None = option(
        "Decode each block in at most this many steps.", None, STEPS, note="one per token of a block", common=True
    )
    commits: Commits | None = option(COMMITS, "fused")

    def build(self, family: str) -> Decoder:
        options = self.filled(traits_of(family))
        if self.threshold is not None and options.alg != "dynamic":
            raise ConfigError(f"alg {options.alg} has no threshold. Leave out threshold, or use alg dynamic.")
        rule = PerBlock(options.alg, options.threshold, self.steps)
        policy = BlockCache(fused=options.commits == "fused")
        return Decoder(AlignedBlocks(self.block_size), rule, policy, kv=self.kv())
