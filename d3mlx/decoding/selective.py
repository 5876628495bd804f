"""`selective`: d3LLM's schedule and rule with a cache that computes only the rows which a step can change.

This is the default decoder, and the only one that is not published elsewhere. Its block size and block_add were chosen
with the teacher of the demonstration models (`research/experiments/sweep.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from d3mlx.decoding.acceptance import NATS
from d3mlx.decoding.cache_policy import INTERVAL_OR_NEVER, MULTIPLE, NEAR, RECENT, SelectiveCache
from d3mlx.decoding.d3llm import ACTIVATION, BLOCK_ADD, THRESHOLD, entropy_rule, published_threshold
from d3mlx.decoding.decoder import CacheOptions, Decoder
from d3mlx.decoding.options import option
from d3mlx.decoding.schedule import AHEAD, BLOCK_SIZE, SHARE, MultiBlock
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of
from d3mlx.tuning import Favor, best_padding, device_name, favored

BLOCK_ADD_FOR: dict[Favor, float] = {"rows": 0.5, "forwards": 0.1}

MASKS_AHEAD = 256
"""Number of masks after the active blocks, the same as in the published runs at the start.

A model chooses the length of its answer by them. The bundled teacher, which was trained on canvases of 64 tokens, is as
accurate with 16 masks. No larger model has been measured.
"""


def measured_multiple(args: Any) -> int:
    return best_padding(args, device_name())


def favored_here(args: Any) -> Favor:
    return favored(device_name())


@dataclass(frozen=True)
class Selective(CacheOptions):
    """Use d3LLM's rule with a KV cache that recomputes only the rows which a step can change."""

    threshold: float | None = option(THRESHOLD, published_threshold, NATS, common=True)
    block_size: int | None = option("Decode in blocks of this many tokens.", 8, BLOCK_SIZE, common=True)
    block_add: float | None = option(BLOCK_ADD, None, SHARE, note="chosen by favor")
    activation: float | None = option(ACTIVATION, 0.95, SHARE)
    recent: int | None = option("Recompute a committed token for this many steps.", 1, RECENT)
    near: int | None = option(
        "Also recompute committed tokens within this many positions of the tokens of recent.", 4, NEAR
    )
    row_multiple: int | None = option(
        "Round the number of rows up to a multiple of this.",
        8,
        MULTIPLE,
        note="the result of `d3mlx bench` on this machine, else 32; 8 in evaluations",
        on_machine=measured_multiple,
    )
    refresh_interval: int | None = option(
        "Recompute all positions once per this many steps.", 0, INTERVAL_OR_NEVER, note="never"
    )
    ahead: int | None = option(
        "Show the model this many blocks of masks after the active blocks; the canvas grows with the answer.",
        None,
        AHEAD,
        note=f"enough for {MASKS_AHEAD} masks",
    )
    favor: Favor | None = option(
        "Save rows (block-add 0.5) or forwards (block-add 0.1).",
        "rows",
        note="rows, or forwards on an M5 or later chip",
        on_machine=favored_here,
    )

    def build(self, family: str) -> Decoder:
        if self.favor is not None and self.block_add is not None:
            raise ConfigError("favor and block-add cannot be combined, because favor chooses block-add. Give only one.")
        traits = traits_of(family)
        options = self.filled(traits)
        ahead = -(-MASKS_AHEAD // options.block_size) if self.ahead is None else self.ahead
        block_add = BLOCK_ADD_FOR[options.favor] if self.block_add is None else self.block_add
        schedule = MultiBlock(options.block_size, block_add, options.activation, ahead)
        policy = SelectiveCache(
            options.recent, options.near, options.row_multiple, options.refresh_interval, source=traits.shift
        )
        return Decoder(schedule, entropy_rule(self.threshold, traits), policy, kv=self.kv())
