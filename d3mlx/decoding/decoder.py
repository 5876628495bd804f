"""What a decoder is: a schedule, an acceptance rule and a cache policy; and what a published decoder by name is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from d3mlx.decoding.acceptance import Acceptance, CarryQuota, DreamSchedule, FirstPosition, Quota
from d3mlx.decoding.cache_policy import CachePolicy, DelayedCache, PrefixCache
from d3mlx.decoding.options import Options, option
from d3mlx.decoding.schedule import MultiBlock, Schedule, SequentialBlocks, WholeCanvas
from d3mlx.errors import ConfigError
from d3mlx.quantization import MODES, KVQuantization


@dataclass(frozen=True)
class Decoder:
    """What the engine runs. Raises ConfigError for a combination that nobody defined.

    cfg_scale: strength of classifier-free guidance; above 0 it adds a second, unprompted sequence to every forward
    (LLaDA). kv: how the KV cache is quantized; None keeps keys and values as they are computed.
    """

    schedule: Schedule
    acceptance: Acceptance
    cache: CachePolicy
    cfg_scale: float = 0.0
    kv: KVQuantization | None = None

    def __post_init__(self) -> None:
        if self.kv is not None and not self.cache.cached:
            raise ConfigError("kv-bits needs a KV cache, and this decoder has none; leave it out, or choose a cache.")
        if self.cfg_scale and self.cache.cached:
            raise ConfigError("Guidance (cfg-scale) is defined without a cache only; use cache none.")
        rule = self.acceptance.inner if isinstance(self.acceptance, FirstPosition) else self.acceptance
        if isinstance(rule, CarryQuota) and not isinstance(self.schedule, WholeCanvas):
            raise ConfigError("A quota that carries over works only without blocks; with blocks, use a threshold.")
        if isinstance(rule, Quota | DreamSchedule) and isinstance(self.schedule, MultiBlock):
            raise ConfigError("A quota counts within one block; with several blocks at once, use a threshold.")
        if isinstance(self.cache, PrefixCache) and not isinstance(self.schedule, SequentialBlocks):
            raise ConfigError("Prefix and dual caches are defined for one block after another; use the delayed cache.")
        if isinstance(self.cache, DelayedCache) and not isinstance(self.schedule, MultiBlock):
            raise ConfigError("The delayed cache is defined for multi-block decoding; use the prefix or dual cache.")


class Preset(Protocol):
    """Whatever builds a decoder for a model family; `Options` do."""

    def build(self, family: str) -> Decoder:
        """Return the decoder for a model family. Raises ConfigError for options that it does not combine."""
        ...


KV_GROUP = 64


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """The options of every decoder with a KV cache."""

    kv_bits: int | None = option(
        "Quantize cached keys and values to this many bits.", None, tuple(sorted(MODES["affine"].bits)), note="none"
    )
    kv_group_size: int | None = option(
        "Numbers of a quantized key or value that share a scale.", KV_GROUP, tuple(sorted(MODES["affine"].groups))
    )

    def kv(self) -> KVQuantization | None:
        """Return how the KV cache is quantized. Raises ConfigError for a group size without bits."""
        if self.kv_bits is None and self.kv_group_size is not None:
            raise ConfigError("kv-group-size belongs to a quantized cache; give kv-bits too.")
        return None if self.kv_bits is None else KVQuantization(self.kv_bits, self.kv_group_size or KV_GROUP)
