"""`d3llm`: entropy-based decoding of several blocks at once, with a delayed, refreshed KV cache (d3LLM paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3mlx.decoding.acceptance import NATS, Entropy
from d3mlx.decoding.cache_policy import DELAY, INTERVAL, DelayedCache, NoCache
from d3mlx.decoding.decoder import CacheOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import BLOCK_SIZE, SHARE, MultiBlock
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of
from d3mlx.models.traits import D3LLMDefaults, Traits

THRESHOLD = "Commit tokens whose entropy is below this many nats."
BLOCK_ADD = "Add the next block when this share of a block is committed."
ACTIVATION = "Commit in every step from the next block when this share of a block is committed."


def published_threshold(traits: Traits) -> float:
    return defaults_of(traits).threshold


def defaults_of(traits: Traits) -> D3LLMDefaults:
    """Return the published defaults of a family with bidirectional attention."""
    assert traits.d3llm is not None
    return traits.d3llm


def entropy_rule(threshold: float | None, traits: Traits) -> Entropy:
    """Return d3LLM's rule as published for a family; the published threshold if `threshold` is None."""
    published = defaults_of(traits)
    return Entropy(
        published.threshold if threshold is None else threshold,
        inclusive=published.inclusive,
        best_always=published.best_always,
        force_likeliest=published.force_likeliest,
    )


@dataclass(frozen=True)
class D3LLM(CacheOptions):
    """Commit tokens of low entropy in several blocks at once, with a delayed KV cache."""

    cache: Literal["none", "delayed"] | None = option(
        "Read from the KV cache: nothing (none), or blocks that completed some steps ago (delayed).",
        "delayed",
        common=True,
    )
    threshold: float | None = option(THRESHOLD, published_threshold, NATS, common=True)
    block_size: int | None = option("Decode in blocks of this many tokens.", 32, BLOCK_SIZE, common=True)
    block_add: float | None = option(BLOCK_ADD, 0.1, SHARE)
    activation: float | None = option(ACTIVATION, 0.95, SHARE)
    cache_delay: int | None = option("Cache a block this many steps after it is complete.", 2, DELAY)
    refresh_interval: int | None = option("Recompute all positions once per this many steps.", 10000, INTERVAL)

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        options = self.filled(traits)
        schedule = MultiBlock(options.block_size, options.block_add, options.activation)
        rule = entropy_rule(self.threshold, traits)
        if options.cache == "none":
            if self.cache_delay is not None or self.refresh_interval is not None:
                raise ConfigError("cache-delay and refresh-interval need the delayed cache. Use cache delayed.")
            return Decoder(schedule, rule, NoCache(), kv=self.kv())
        policy = DelayedCache(
            options.cache_delay, options.refresh_interval, one_at_a_time=defaults_of(traits).one_at_a_time
        )
        return Decoder(schedule, rule, policy, kv=self.kv())
