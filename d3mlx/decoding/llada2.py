"""`llada2`: block-by-block decoding of LLaDA2, with editing as LLaDA2.1 publishes it (LLaDA2.1 report)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from d3mlx.decoding.acceptance import PROBABILITY, STEPS
from d3mlx.decoding.cache_policy import BlockCache
from d3mlx.decoding.decoder import BlockOptions, Decoder
from d3mlx.decoding.options import Range, option
from d3mlx.decoding.schedule import AlignedBlocks
from d3mlx.decoding.sdar import COMMITS, Commits, PerBlock
from d3mlx.drafts import Editing
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of
from d3mlx.models.traits import Attention

PASSES = Range("a number of forwards")


@dataclass(frozen=True)
class LLaDA2(BlockOptions):
    """Decode block by block with an exact KV cache, by LLaDA2's rule, and edit tokens until their block is final."""

    attention: ClassVar[Attention] = "block-causal"

    threshold: float | None = option("Commit tokens whose probability is above this.", 0.95, PROBABILITY, common=True)
    editing_threshold: float | None = option(
        "Replace a token of the open block by another one whose probability is above this.",
        None,
        PROBABILITY,
        note="none: tokens never change",
        common=True,
    )
    max_post_steps: int | None = option(
        "Edit a block in at most this many forwards after its last mask is filled.", 16, PASSES
    )
    steps: int | None = option(
        "Decode each block in at most this many steps.", None, STEPS, note="one per token of a block", common=True
    )
    commits: Commits | None = option(COMMITS, "fused")

    def build(self, family: str) -> Decoder:
        if self.editing_threshold is None and self.max_post_steps is not None:
            raise ConfigError("max-post-steps limits editing. Give editing-threshold too.")
        options = self.filled(traits_of(family))
        edits = options.editing_threshold is not None
        rule = PerBlock("dynamic", options.threshold, self.steps, capped=not edits)
        editing = Editing(options.editing_threshold, options.max_post_steps) if edits else None
        policy = BlockCache(fused=options.commits == "fused")
        return Decoder(AlignedBlocks(self.block_size), rule, policy, kv=self.kv(), editing=editing)
