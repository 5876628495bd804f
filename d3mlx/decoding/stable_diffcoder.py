"""`stable-diffcoder`: block-by-block decoding with an exact cache, as Stable-DiffCoder publishes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import (
    PROBABILITY,
    STEPS,
    Acceptance,
    Candidates,
    Confidence,
    EndsInOrder,
    most_confident,
    quotas,
)
from d3mlx.decoding.cache_policy import BlockCache
from d3mlx.decoding.decoder import BlockOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import AlignedBlocks
from d3mlx.decoding.sdar import COMMITS, Commits
from d3mlx.errors import ConfigError
from d3mlx.kernels.accept_blocks import Rule
from d3mlx.models import traits_of
from d3mlx.models.traits import Attention


@dataclass(frozen=True)
class MaskQuota(EndsInOrder):
    """Each step commits a fixed number of the most confident tokens: the masks of the block divided by the steps.

    steps: per block; None for one per mask.
    """

    steps: int | None = None
    filtered_statistics: bool = False

    def start(self, canvas: Canvas) -> tuple[int, tuple[int, ...]]:
        """Return the state: the start of the current block, its remaining quotas."""
        return (-1, ())

    def rule(self, candidates: Candidates, state: tuple[int, tuple[int, ...]]) -> tuple[Rule, Any]:
        block, (opened, left) = candidates.active.first_full, state
        if block.start != opened:
            left = tuple(quotas(block.masks, min(self.steps or block.masks, block.masks)))
        return most_confident("confidence", left[0], candidates), (block.start, left[1:])


@dataclass(frozen=True)
class StableDiffCoder(BlockOptions):
    """Decode block by block with an exact KV cache, by Stable-DiffCoder's rules."""

    attention: ClassVar[Attention] = "block-causal"

    alg: Literal["dynamic", "static"] | None = option(
        "Commit the tokens at or above the threshold (dynamic), or a fixed number of the most likely (static).",
        "dynamic",
        common=True,
    )
    threshold: float | None = option(
        "Commit tokens with at least this probability, and always the best one.", 0.95, PROBABILITY, common=True
    )
    steps: int | None = option(
        "Decode each block in this many steps (alg static).", None, STEPS, note="one per mask of a block", common=True
    )
    commits: Commits | None = option(COMMITS, "fused")

    def build(self, family: str) -> Decoder:
        options = self.filled(traits_of(family))
        dynamic = options.alg == "dynamic"
        if self.threshold is not None and not dynamic:
            raise ConfigError(f"alg {options.alg} has no threshold. Leave out threshold, or use alg dynamic.")
        if self.steps is not None and dynamic:
            raise ConfigError("alg dynamic has no number of steps. Leave out steps, or use alg static.")
        rule: Acceptance = Confidence(options.threshold) if dynamic else MaskQuota(self.steps)
        policy = BlockCache(fused=options.commits == "fused")
        return Decoder(AlignedBlocks(self.block_size), rule, policy, kv=self.kv())
