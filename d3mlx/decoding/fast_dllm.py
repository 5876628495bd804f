"""`fast-dllm`: parallel decoding by confidence, with a prefix or dual KV cache (Fast-dLLM paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3mlx.decoding.acceptance import (
    FACTOR,
    PROBABILITY,
    STEPS,
    Acceptance,
    CarryQuota,
    Confidence,
    Factor,
    FirstPosition,
)
from d3mlx.decoding.cache_policy import CachePolicy, DualCache, NoCache, PrefixCache
from d3mlx.decoding.decoder import CacheOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import BLOCK_SIZE, SequentialBlocks, WholeCanvas
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of

CACHES: dict[str, CachePolicy] = {"none": NoCache(), "prefix": PrefixCache(), "dual": DualCache()}


@dataclass(frozen=True)
class FastDLLM(CacheOptions):
    """Commit every confident token of a block, with a prefix or dual KV cache."""

    cache: Literal["none", "prefix", "dual"] | None = option(
        "What a step reads from the KV cache: nothing, what stands before the block, or all but the block.",
        "dual",
        common=True,
    )
    threshold: float | None = option("Commit tokens with at least this probability.", 0.9, PROBABILITY, common=True)
    factor: float | None = option(
        "LLaDA: commit by the factor rule instead of a threshold.", None, FACTOR, note="the threshold"
    )
    block_size: int | None = option("Tokens in a block.", 32, BLOCK_SIZE, common=True)
    steps: int | None = option(
        "Dream without a cache: denoising steps for the whole answer.",
        None,
        STEPS,
        note="one per new token",
        common=True,
    )

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        options, kv = self.filled(traits), self.kv()
        if self.threshold is not None and self.factor is not None:
            raise ConfigError("Give fast-dllm a threshold or a factor, not both.")
        if traits.carries_quota and self.factor is not None:
            raise ConfigError("The factor rule is published for LLaDA models only; give Dream a threshold.")
        if traits.carries_quota and options.cache == "none":
            if self.block_size is not None:
                raise ConfigError("Without a cache, fast-dllm decodes Dream's whole canvas; block-size has no effect.")
            return Decoder(WholeCanvas(), CarryQuota(options.threshold, self.steps), NoCache(), kv=kv)
        if self.steps is not None:
            raise ConfigError("fast-dllm takes steps only for Dream with cache none; elsewhere the threshold decides.")
        rule: Acceptance = Confidence(options.threshold) if self.factor is None else Factor(self.factor)
        if traits.carries_quota:
            rule = FirstPosition(Confidence(options.threshold, filtered_statistics=True))
        return Decoder(SequentialBlocks(options.block_size), rule, CACHES[options.cache], kv=kv)
