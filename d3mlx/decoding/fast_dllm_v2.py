"""`fast-dllm-v2`: block-by-block decoding in sub-blocks, with an exact cache of blocks (Fast-dLLM v2 paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from d3mlx.decoding.acceptance import PROBABILITY, Candidates, Stateless
from d3mlx.decoding.cache_policy import BlockCache
from d3mlx.decoding.decoder import BlockOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import BLOCK_SIZE, AlignedBlocks
from d3mlx.kernels.accept_blocks import Rule
from d3mlx.models import traits_of
from d3mlx.models.traits import Attention


@dataclass(frozen=True)
class SubBlock(Stateless):
    """Fast-dLLM v2's rule: commit each position of the sub-block above `threshold`, or else the best one.

    A forward of given tokens or of a finished block commits the first position of the next block.
    """

    threshold: float
    filtered_statistics: bool = True

    def rule(self, candidates: Candidates, state: None) -> tuple[Rule, None]:
        if candidates.kind in ("prefill", "commit"):
            return Rule("opening"), None
        return Rule("confidence", self.threshold, inclusive=False), None


@dataclass(frozen=True)
class FastDLLMv2(BlockOptions):
    """Decode block by block in sub-blocks, with an exact KV cache of finished blocks."""

    attention: ClassVar[Attention] = "block-causal"

    threshold: float | None = option("Commit tokens whose probability is above this.", 0.9, PROBABILITY, common=True)
    sub_block_size: int | None = option(
        "Decode a block in parts of this many tokens.", 8, BLOCK_SIZE, note="8, or a divisor of the block", common=True
    )
    block_cache: Literal["on", "off"] | None = option(
        "Compute only the rows of a sub-block after its first token (on), or those of the whole block (off).", "off"
    )

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        options = self.filled(traits)
        shifted = traits.shift > 0
        policy = BlockCache(fused=not shifted, next_token=shifted, sub_blocks=options.block_cache == "on")
        schedule = AlignedBlocks(self.block_size, options.sub_block_size, fits=self.sub_block_size is None)
        return Decoder(schedule, SubBlock(options.threshold), policy, kv=self.kv())
