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
        "Read from the KV cache: nothing (none), positions before the block (prefix), or all except the block (dual).",
        "dual",
        common=True,
    )
    threshold: float | None = option("Commit tokens with at least this probability.", 0.9, PROBABILITY, common=True)
    factor: float | None = option(
        "Commit by the factor rule instead of a threshold (LLaDA only).", None, FACTOR, note="the threshold"
    )
    block_size: int | None = option("Decode in blocks of this many tokens.", 32, BLOCK_SIZE, common=True)
    steps: int | None = option(
        "Decode the complete answer in this many steps (Dream without a cache only).",
        None,
        STEPS,
        note="one per new token",
        common=True,
    )

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        options, kv = self.filled(traits), self.kv()
        if self.threshold is not None and self.factor is not None:
            raise ConfigError("fast-dllm takes a threshold or a factor, not both. Leave out one of them.")
        if traits.carries_quota and self.factor is not None:
            raise ConfigError("The factor rule is published only for LLaDA models. Use a threshold for Dream.")
        if traits.carries_quota and options.cache == "none":
            if self.block_size is not None:
                raise ConfigError("Without a cache, fast-dllm decodes Dream without blocks. Leave out block-size.")
            return Decoder(WholeCanvas(), CarryQuota(options.threshold, self.steps), NoCache(), kv=kv)
        if self.steps is not None:
            raise ConfigError("fast-dllm takes steps only for Dream with cache none. Leave out steps.")
        rule: Acceptance = Confidence(options.threshold) if self.factor is None else Factor(self.factor)
        if traits.carries_quota:
            rule = FirstPosition(Confidence(options.threshold, filtered_statistics=True))
        return Decoder(SequentialBlocks(options.block_size), rule, CACHES[options.cache], kv=kv)
