"""`selective`: d3LLM's schedule and rule with a cache that computes only the rows which a step can change.

This is the default decoder, and the only one that is not published elsewhere. Its block size and block_add were chosen
with the teacher of the demonstration models (`research/experiments/sweep.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from d3mlx.decoding.acceptance import NATS, Relaxed
from d3mlx.decoding.cache_policy import INTERVAL_OR_NEVER
from d3mlx.decoding.d3llm import ACTIVATION, BLOCK_ADD, THRESHOLD, entropy_rule, published_threshold
from d3mlx.decoding.decoder import CacheOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import BLOCK_SIZE, SHARE, MultiBlock
from d3mlx.decoding.selective_cache import LEAST, MASKS, MOST, NEAR, RECENT, ROWS, SelectiveCache
from d3mlx.models import traits_of

ROW_TARGET = 32
"""Rows of a forward. On Apple GPUs before M5, MLX computes matrix products in tiles of 32 rows.

So 13 to 32 rows take about the same time there, and 33 take twice as long (`research/experiments/staircase.py`). On the
bundled models, fewer rows lose accuracy, and more rows gain none (`research/experiments/row_target.py`).
"""


@dataclass(frozen=True)
class Selective(CacheOptions):
    """Use d3LLM's rule with a KV cache that recomputes only the rows which a step can change."""

    threshold: float | None = option(THRESHOLD, published_threshold, NATS, common=True)
    block_size: int | None = option("Decode in blocks of this many tokens.", 8, BLOCK_SIZE, common=True)
    block_add: float | None = option(BLOCK_ADD, 0.5, SHARE)
    activation: float | None = option(ACTIVATION, 0.95, SHARE)
    relaxed_threshold: float | None = option(
        "Near a confident token, commit tokens whose entropy is below this many nats.", None, NATS, note="the threshold"
    )
    recent: int | None = option("Recompute a committed token for this many steps.", 1, RECENT)
    near: int | None = option(
        "Also recompute committed tokens within this many positions of the tokens of recent.", 4, NEAR
    )
    rows: int | None = option("Compute this many rows per forward.", ROW_TARGET, ROWS)
    refresh_interval: int | None = option(
        "Recompute all positions once per this many steps.", 0, INTERVAL_OR_NEVER, note="never"
    )
    first_masks: int | None = option(
        "Compute at least this many masks in the first forward; later forwards add more when they have room.",
        None,
        MASKS,
        note=f"half of max-tokens, from {LEAST} to {MOST}",
    )

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        options = self.filled(traits)
        schedule = MultiBlock(options.block_size, options.block_add, options.activation, ahead=0)
        policy = SelectiveCache(
            options.recent, options.near, options.rows, options.refresh_interval, traits.shift, options.first_masks
        )
        entropy = entropy_rule(self.threshold, traits)
        relaxed = self.relaxed_threshold
        rule = entropy if relaxed is None else Relaxed(entropy, relaxed)
        return Decoder(schedule, rule, policy, kv=self.kv())
