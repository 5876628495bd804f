"""The published decoders, each a triple of schedule x acceptance x rows.

A preset is a frozen config whose `None` fields take the published default of the model family; `build(family)` gives
the `Decoder` that the engine runs. Combinations that nobody defined are refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from d3mlx.decoding.acceptance import (
    Acceptance,
    Carry,
    Confidence,
    Entropy,
    Factor,
    Measure,
    OpensBlock,
    Origin,
    Quota,
    TimeQuota,
)
from d3mlx.decoding.rows import Delayed, Dual, Full, Needed, Prefix, RowPolicy
from d3mlx.decoding.schedule import MultiBlock, Schedule, SequentialBlocks, WholeCanvas
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of
from d3mlx.packing import KVPacking

RowsName = Literal["full", "prefix", "dual", "delayed"]


@dataclass(frozen=True)
class Decoder:
    """What the engine runs. `cfg_scale` above 0 adds a second, unprompted sequence to every forward (LLaDA).

    kv: how K and V are quantized in the cache, None for as they are computed.
    """

    schedule: Schedule
    acceptance: Acceptance
    rows: RowPolicy
    cfg_scale: float = 0.0
    kv: KVPacking | None = None

    def __post_init__(self) -> None:
        if self.kv is not None and not self.rows.cached:
            raise ConfigError("Full rows keep no K/V, so kv-bits has no effect; leave it out, or choose cached rows.")
        if self.cfg_scale and self.rows.cached:
            raise ConfigError("Guidance (cfg-scale) is defined for full rows only; use it without a cache.")
        rule = self.acceptance.inner if isinstance(self.acceptance, OpensBlock) else self.acceptance
        if isinstance(rule, Carry) and not isinstance(self.schedule, WholeCanvas):
            raise ConfigError("A quota that carries over is defined for the whole canvas; use a threshold with blocks.")
        if isinstance(rule, Quota | TimeQuota) and isinstance(self.schedule, MultiBlock):
            raise ConfigError("A quota counts within one block; use a threshold with several blocks at once.")
        if isinstance(self.rows, Prefix | Dual) and not isinstance(self.schedule, SequentialBlocks):
            raise ConfigError("Prefix and dual caches are defined for one block after another; use the delayed cache.")
        if isinstance(self.rows, Delayed) and not isinstance(self.schedule, MultiBlock):
            raise ConfigError("The delayed cache is defined for multi-block decoding; use the prefix or dual cache.")


class Preset(Protocol):
    """A published decoder by name, with the knobs it has."""

    def build(self, family: str) -> Decoder: ...


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{what} must be one of {', '.join(choices)}, not {value!r}.")


STRONGEST = 1000.0
"""Guidance beyond this overflows."""

LLADA_ALGS: dict[str, Measure] = {
    "low_confidence": "confidence",
    "random": "random",
}
DREAM_ALGS: dict[str, Measure] = {
    "entropy": "entropy",
    "maskgit_plus": "confidence",
    "topk_margin": "margin",
}


@dataclass(frozen=True)
class Vanilla:
    """The models' own samplers.

    steps: denoising steps for the whole answer; None is one per new token.
    alg: LLaDA low_confidence (default) or random; Dream entropy (default), maskgit_plus, topk_margin or origin.
    block_size: LLaDA's block length (default 32); Dream decodes the whole canvas.
    cfg_scale: LLaDA's classifier-free guidance, 0 for none.
    alg_temp: Dream's randomness in the choice of positions, 0 for none.
    eps: Dream's last time of the schedule (default 0.001).
    """

    steps: int | None = None
    alg: str | None = None
    block_size: int | None = None
    cfg_scale: float | None = None
    alg_temp: float | None = None
    eps: float | None = None

    def build(self, family: str) -> Decoder:
        return self.quota() if traits_of(family).sampler == "quota" else self.schedule()

    def quota(self) -> Decoder:
        if self.alg_temp is not None or self.eps is not None:
            raise ConfigError("alg-temp and eps belong to Dream's sampler; this model is a LLaDA.")
        alg = self.alg or "low_confidence"
        check_choice("alg for a LLaDA model", alg, tuple(LLADA_ALGS))
        cfg_scale = self.cfg_scale or 0.0
        if not 0 <= cfg_scale <= STRONGEST:
            raise ConfigError(f"The guidance scale must be from 0 to {STRONGEST}, not {cfg_scale}.")
        schedule = SequentialBlocks(32 if self.block_size is None else self.block_size)
        return Decoder(schedule, Quota(LLADA_ALGS[alg], self.steps), Full(), cfg_scale)

    def schedule(self) -> Decoder:
        if self.cfg_scale is not None or self.block_size is not None:
            raise ConfigError("cfg-scale and block-size belong to LLaDA's sampler; this model is a Dream.")
        alg = self.alg or "entropy"
        check_choice("alg for a Dream model", alg, (*DREAM_ALGS, "origin"))
        eps = 1e-3 if self.eps is None else self.eps
        if alg == "origin":
            if self.alg_temp is not None:
                raise ConfigError("alg-temp has no effect with alg origin, which tosses a coin for every position.")
            return Decoder(WholeCanvas(), Origin(self.steps, eps), Full())
        rule = TimeQuota(DREAM_ALGS[alg], self.steps, eps, self.alg_temp or 0.0)
        return Decoder(WholeCanvas(), rule, Full())


@dataclass(frozen=True)
class FastDLLM:
    """Fast-dLLM: parallel decoding by confidence, with a prefix or dual K/V cache.

    rows: full, prefix or dual (default).
    threshold: accept every position with at least this probability (default 0.9).
    factor: the factor rule instead of a threshold (LLaDA).
    steps: Dream with full rows decodes the whole canvas on a quota of this many steps (None: one per new token).
    block_size: default 32. kv_bits, kv_group_size: of a quantized cache (see `kv_packing`), default none.
    """

    rows: RowsName | None = None
    threshold: float | None = None
    factor: float | None = None
    steps: int | None = None
    block_size: int | None = None
    kv_bits: int | None = None
    kv_group_size: int | None = None

    def build(self, family: str) -> Decoder:
        carries = traits_of(family).carries_quota
        kv = kv_packing(self.kv_bits, self.kv_group_size)
        rows = self.rows or "dual"
        check_choice("rows for fast-dllm", rows, ("full", "prefix", "dual"))
        if self.threshold is not None and self.factor is not None:
            raise ConfigError("Give fast-dllm a threshold or a factor, not both.")
        threshold = 0.9 if self.threshold is None else self.threshold
        if carries and self.factor is not None:
            raise ConfigError("The factor rule is published for LLaDA models only; give Dream a threshold.")
        if carries and rows == "full":
            if self.block_size is not None:
                raise ConfigError("Without a cache, fast-dllm decodes Dream's whole canvas; block-size has no effect.")
            return Decoder(WholeCanvas(), Carry(threshold, self.steps), Full(), kv=kv)
        if self.steps is not None:
            raise ConfigError("fast-dllm takes steps only for Dream with full rows; elsewhere the threshold decides.")
        schedule = SequentialBlocks(32 if self.block_size is None else self.block_size)
        policies: dict[str, RowPolicy] = {"full": Full(), "prefix": Prefix(), "dual": Dual()}
        policy = policies[rows]
        if carries:
            return Decoder(schedule, OpensBlock(Confidence(threshold, filtered_statistics=True)), policy, kv=kv)
        rule: Acceptance = Confidence(threshold) if self.factor is None else Factor(self.factor)
        return Decoder(schedule, rule, policy, kv=kv)


@dataclass(frozen=True)
class D3LLM:
    """d3LLM: entropy-based decoding of several blocks at once, with a delayed, refreshed K/V cache.

    rows: full or delayed (default).
    threshold: accept entropies below this many nats (default 0.5 for LLaDA, 0.4 for Dream).
    block_size: default 32. block_add, activation: shares of a block, default 0.1 and 0.95 (see `MultiBlock`).
    cache_delay, refresh_interval: in steps, default 2 and 10000 (see `Delayed`).
    kv_bits, kv_group_size: of a quantized cache (see `kv_packing`), default none.
    """

    rows: RowsName | None = None
    threshold: float | None = None
    block_size: int | None = None
    block_add: float | None = None
    activation: float | None = None
    cache_delay: int | None = None
    refresh_interval: int | None = None
    kv_bits: int | None = None
    kv_group_size: int | None = None

    def build(self, family: str) -> Decoder:
        published = traits_of(family).d3llm
        kv = kv_packing(self.kv_bits, self.kv_group_size)
        rows = self.rows or "delayed"
        check_choice("rows for d3llm", rows, ("full", "delayed"))
        schedule = MultiBlock(**given(block_size=self.block_size, block_add=self.block_add, activation=self.activation))
        rule = Entropy(
            published.threshold if self.threshold is None else self.threshold,
            inclusive=published.inclusive,
            best_always=published.best_always,
            force_likeliest=published.force_likeliest,
        )
        if rows == "full":
            if self.cache_delay is not None or self.refresh_interval is not None:
                raise ConfigError("cache-delay and refresh-interval belong to the delayed cache; full rows have none.")
            return Decoder(schedule, rule, Full(), kv=kv)
        knobs = given(delay=self.cache_delay, refresh_interval=self.refresh_interval)
        return Decoder(schedule, rule, Delayed(**knobs, one_at_a_time=published.one_at_a_time), kv=kv)


Favor = Literal["rows", "forwards"]
BLOCK_ADD: dict[Favor, float] = {"rows": 0.5, "forwards": 0.1}
"""How much of a block must be there before the next one is computed too."""


AHEAD = 256
"""Masks beyond the active blocks, as many as the published runs show at first.

A model sizes its answer by them. The embedded teacher, which learned canvases of 64, does as well with 16 of them; that
of a larger one is not known.
"""


@dataclass(frozen=True)
class D3MLX:
    """d3LLM's schedule and rule on needed rows: a step computes what can change, and reads the rest from the cache.

    threshold: accept entropies below this many nats (default 0.5 for LLaDA, 0.4 for Dream).
    favor: what to save, rows (default) or forwards; a generation goes by its machine (`api.decoder_for`). Decides
    block_add, 0.5 or 0.1, which like the block_size of 8 was chosen on the embedded teacher by the experiment `sweep`.
    activation: default 0.95 (see `MultiBlock`).
    recent: steps for which committed rows are computed again, default 1. near: tokens at most this many positions from
    those are computed with them, default 4. row_multiple: row counts are rounded up to a multiple of this, default 8; a
    generation takes what was measured on its machine instead. refresh_interval: steps between passes over everything,
    default 0 for none. ahead: blocks of masks that take part beyond the active ones, default enough for `AHEAD` masks;
    the canvas grows with the answer, and a higher max_tokens costs nothing until the answer gets that long.
    kv_bits, kv_group_size: of a quantized cache (see `kv_packing`), default none.
    """

    threshold: float | None = None
    block_size: int | None = None
    block_add: float | None = None
    activation: float | None = None
    recent: int | None = None
    near: int | None = None
    row_multiple: int | None = None
    refresh_interval: int | None = None
    ahead: int | None = None
    kv_bits: int | None = None
    kv_group_size: int | None = None
    favor: Favor | None = None

    def build(self, family: str) -> Decoder:
        favor: Favor = self.favor or "rows"
        check_choice("favor", favor, get_args(Favor))
        exact = D3LLM("full", self.threshold).build(family)
        block_size = 8 if self.block_size is None else self.block_size
        block_add = BLOCK_ADD[favor] if self.block_add is None else self.block_add
        blocks = {"block_size": block_size, "block_add": block_add} | given(activation=self.activation)
        knobs = given(recent=self.recent, near=self.near, multiple=self.row_multiple)
        knobs |= given(refresh_interval=self.refresh_interval)
        schedule = MultiBlock(**blocks, ahead=self.ahead)
        if self.ahead is None:
            schedule = replace(schedule, ahead=-(-AHEAD // block_size))
        rows = Needed(**knobs, source=traits_of(family).shift)
        return Decoder(schedule, exact.acceptance, rows, kv=kv_packing(self.kv_bits, self.kv_group_size))


def kv_packing(bits: int | None, group_size: int | None) -> KVPacking | None:
    """How a preset's K/V is quantized; groups of 64 numbers if `group_size` is None."""
    if bits is None and group_size is not None:
        raise ConfigError("kv-group-size belongs to a quantized cache; give kv-bits too.")
    return None if bits is None else KVPacking(bits, **given(group_size=group_size))


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


PRESETS: dict[str, type[Vanilla] | type[FastDLLM] | type[D3LLM] | type[D3MLX]] = {
    "d3mlx": D3MLX,
    "vanilla": Vanilla,
    "fast-dllm": FastDLLM,
    "d3llm": D3LLM,
}


def preset(name: str, **options: Any) -> Preset:
    """The preset called `name` with the given knobs; ConfigError for a name or a knob it does not have."""
    check_choice("The decoder", name, tuple(PRESETS))
    kind = PRESETS[name]
    known = set(kind.__dataclass_fields__)
    if unknown := [option for option in options if option not in known]:
        wrong, right = (", ".join(sorted(names)).replace("_", "-") for names in (unknown, known))
        raise ConfigError(f"The decoder {name} has no {wrong}; it takes {right}.")
    return kind(**options)
