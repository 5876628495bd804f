"""The Decoder (a schedule, an acceptance rule and a cache policy), and presets that build one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from d3mlx.decoding.acceptance import Acceptance, CarryQuota, DreamSchedule, FirstPosition, Quota
from d3mlx.decoding.cache_policy import BlockCache, CachePolicy, DelayedCache, PrefixCache
from d3mlx.decoding.options import Options, option
from d3mlx.decoding.schedule import BLOCK_SIZE, AlignedBlocks, MultiBlock, Schedule, SequentialBlocks, WholeCanvas
from d3mlx.drafts import Editing
from d3mlx.errors import ConfigError
from d3mlx.models.traits import Attention
from d3mlx.quantization import MODES, KVQuantization


@dataclass(frozen=True)
class Decoder:
    """The policies that the engine runs. Raises ConfigError for an undefined combination.

    cfg_scale: strength of classifier-free guidance (LLaDA); above 0 it adds a second sequence without the prompt to
    every forward. kv: quantization of the KV cache; None for none. editing: how committed tokens may change until their
    block is final; None if they never change.
    """

    schedule: Schedule
    acceptance: Acceptance
    cache: CachePolicy
    cfg_scale: float = 0.0
    kv: KVQuantization | None = None
    editing: Editing | None = None

    def __post_init__(self) -> None:
        if self.kv is not None and not self.cache.cached:
            raise ConfigError("kv-bits needs a KV cache, and this decoder has none. Leave it out, or choose a cache.")
        if self.cfg_scale and self.cache.cached:
            raise ConfigError("Guidance (cfg-scale) works only without a cache. Use cache none.")
        rule = self.acceptance.inner if isinstance(self.acceptance, FirstPosition) else self.acceptance
        if isinstance(rule, CarryQuota) and not isinstance(self.schedule, WholeCanvas):
            raise ConfigError("A quota that carries over works only without blocks. With blocks, use a threshold.")
        if isinstance(rule, Quota | DreamSchedule) and isinstance(self.schedule, MultiBlock):
            raise ConfigError("A quota works only with one block at a time. With several blocks, use a threshold.")
        if isinstance(self.cache, PrefixCache) and not isinstance(self.schedule, SequentialBlocks):
            raise ConfigError("Prefix and dual caches work only with one block at a time. Use the delayed cache.")
        if isinstance(self.cache, DelayedCache) and not isinstance(self.schedule, MultiBlock):
            raise ConfigError("The delayed cache works only with multi-block decoding. Use the prefix or dual cache.")
        if self.editing is not None and not isinstance(self.cache, BlockCache):
            raise ConfigError("Tokens can be edited only in blocks with the block cache. Use a block-causal decoder.")
        if isinstance(self.cache, BlockCache) != isinstance(self.schedule, AlignedBlocks):
            raise ConfigError("The block cache works only with aligned blocks, and they only with it. Use both.")

    @property
    def attention(self) -> Attention:
        """Return the kind of attention that a model must have for this decoder."""
        return "block-causal" if isinstance(self.cache, BlockCache) else "bidirectional"

    def block_size_of(self, args: Any) -> int | None:
        """Return the size of the blocks of a canvas for the model with these ModelArgs; None for bidirectional ones."""
        if not isinstance(self.schedule, AlignedBlocks):
            return None
        return self.schedule.block_size or int(args.block_size)


class Preset(Protocol):
    """An object that builds a decoder for a model family, such as `Options`."""

    def build(self, family: str) -> Decoder:
        """Return the decoder for a model family. Raises ConfigError for options that cannot be combined."""
        ...


KV_GROUP = 64


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """The options of every decoder with a KV cache."""

    kv_bits: int | None = option(
        "Quantize cached keys and values to this many bits.", None, tuple(sorted(MODES["affine"].bits)), note="none"
    )
    kv_group_size: int | None = option(
        "Use one scale per this many numbers of a quantized key or value.",
        KV_GROUP,
        tuple(sorted(MODES["affine"].groups)),
    )

    def kv(self) -> KVQuantization | None:
        """Return the quantization of the KV cache, or None. Raises ConfigError for a group size without bits."""
        if self.kv_bits is None and self.kv_group_size is not None:
            raise ConfigError("kv-group-size needs a quantized cache. Give kv-bits too.")
        return None if self.kv_bits is None else KVQuantization(self.kv_bits, self.kv_group_size or KV_GROUP)


@dataclass(frozen=True, kw_only=True)
class BlockOptions(CacheOptions):
    """The options of every decoder of block-causal models."""

    block_size: int | None = option(
        "Decode in blocks of this many tokens.", None, BLOCK_SIZE, note="the model's own", common=True
    )
