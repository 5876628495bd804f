"""One request: the complete state of a generation between two steps, and the Step that it reports.

All positions are absolute: 0 is the first token of the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.cache import KVCache, RowIndex
from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.acceptance import NO_COMMITS, Candidates, Commits
from d3mlx.decoding.cache_policy import Kind
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.sampling import Drawing, Noise, Sampling
from d3mlx.decoding.schedule import ActiveBlocks, Block, active_end, advance, without_complete
from d3mlx.drafts import NONE_WRITTEN, Drafts, Written
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.kernels.accept_blocks import Accepted, Rule, accept_blocks
from d3mlx.kernels.dispatch import on_device
from d3mlx.kernels.token_stats import TokenStats
from d3mlx.models import DiffusionModel


@dataclass(frozen=True)
class Stats:
    """Totals of a request so far. Forwards, rows and committed tokens are counted only here.

    rows: computed positions, over all forwards (a guided forward counts both of its lanes). prefill_rows: given tokens
    that were computed for the first time; a part of `rows`. tokens: committed tokens, up to and including the first end
    token.
    """

    forwards: int = 0
    rows: int = 0
    prefill_rows: int = 0
    tokens: int = 0

    @property
    def tokens_per_forward(self) -> float:
        """Return the committed tokens per forward (TPF), 0 before the first forward."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def rows_per_token(self) -> float:
        """Return the computed rows per committed token (RPT), 0 before the first token."""
        return self.rows / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Step:
    """One denoising iteration of one request. Positions are absolute; arrays are NumPy's.

    index: 0 for the first step. kind: "first" (the full pass that opens a block), "step", "refresh" (a full pass that
    renews the cache), or "prefill" and "commit" (keys and values of given tokens or of a finished block).
    positions: int32 [C], ascending, the committed positions. tokens: int32 [C], their ids. entropies: float32 [C], in
    nats. filled: int32 [F], positions that a committed end token filled.
    eligible: int32 [N], every position that could commit. guesses: int32 [N], its most likely token. guess_entropies:
    float32 [N], in nats.
    written: the drafts of a decoder that edits (`Drafts`): its positions commit when their block is final.
    blocks: the active blocks before the forward. rows: number of positions that this forward computed. stats: totals
    after this step. text: the text that became readable, set by `stream_generate` if there is a tokenizer. round: 0, or
    how often the canvas was replaced by one with larger holes; positions are those of the canvas of this round.
    """

    index: int
    kind: Kind
    positions: Ints
    tokens: Ints
    entropies: npt.NDArray[np.float32]
    filled: Ints
    eligible: Ints
    guesses: Ints
    guess_entropies: npt.NDArray[np.float32]
    blocks: tuple[Block, ...]
    rows: int
    stats: Stats
    text: str = field(default="")
    round: int = 0
    written: Written = NONE_WRITTEN


@dataclass(frozen=True, eq=False)
class Lane:
    """One sequence of a request in a forward: a canvas and its cache. A guided request has two lanes."""

    canvas: Canvas
    cache: KVCache


def check_reuse(model: DiffusionModel, decoder: Decoder, cache: KVCache, block_size: int | None) -> None:
    """Raise ConfigError if a request with this decoder cannot start from an earlier cache."""
    if cache.model is not None and cache.model is not model:
        raise ConfigError("The earlier cache belongs to another model. Use a cache of this model, or none.")
    if not decoder.cache.cached or not cache.keep:
        raise ConfigError("A decoder that computes every row keeps no cache. Use another decoder, or no earlier cache.")
    if cache.model is not None and cache.block_size != block_size:
        raise ConfigError(
            f"The earlier cache has blocks of {cache.block_size} tokens, and this request of {block_size}. Use the "
            "same block-size."
        )
    if cache.quantization != decoder.kv:
        raise ConfigError("The earlier cache is quantized differently. Use the same kv-bits and kv-group-size.")


NOTHING = np.empty(0, np.int32)
"""The result of a step in which a request had nothing to decide."""


class Request:
    """A canvas, its decoder's policies with their states, its KV cache, its noise, its block table and its totals.

    Its plans depend only on these, so a request gets the same tokens alone and together with other requests. `plan`
    sets the attributes of the next step. active: the active blocks. kind: purpose of the forward. rows: the positions
    to compute. eligible: int32 [N], ascending, the positions that may commit.
    """

    active: ActiveBlocks
    kind: Kind
    rows: RowIndex
    eligible: Ints

    def __init__(
        self,
        model: DiffusionModel,
        canvas: Canvas,
        decoder: Decoder,
        sampling: Sampling | None = None,
        noise: Noise | None = None,
        cache: KVCache | None = None,
    ):
        """Begin to decode `canvas` in place.

        decoder: policies, for example `D3LLM().build(model.family)`. sampling: greedy by default. noise: by default
        made from the sampling's seed.
        cache: that of an earlier request of the same model; it is not changed. The leading tokens that it has in common
        with this prompt are not computed again. This is exact for a block-causal model and approximate for a
        bidirectional model, whose keys and values depend on the later tokens too. Raises ConfigError if the cache
        cannot be used.
        """
        sampling = sampling or Sampling()
        if canvas.block_size is not None and sampling.top_k == 1:
            # Otherwise every confidence would be 1, because one token remains.
            sampling = replace(sampling, temperature=0.0, top_p=None, top_k=None)
        self.canvas, self.decoder = canvas, decoder
        rule = decoder.acceptance
        self.drawing = Drawing(sampling, noise or Noise(sampling.seed), rule.filtered_statistics, rule.top_k_first)
        if cache is None:
            cache = KVCache(len(model.layers), decoder.cache.cached, decoder.kv)
        else:
            check_reuse(model, decoder, cache, canvas.block_size)
            # A prediction for the first mask is read from the row `shift` before it, which must see these masks.
            known, size = canvas.tokens[: max(canvas.prompt_length - model.shift, 0)], canvas.block_size
            cache = cache.trim(cache.match(known) if size is None else cache.match_blocks(known, size))
        cache.model, cache.block_size = model, canvas.block_size
        self.lanes = [Lane(canvas, cache)]
        if decoder.cfg_scale:
            self.lanes.append(Lane(canvas.without_given(), KVCache(len(model.layers), keep=False)))
        self.greedy = self.drawing.greedy and not decoder.cfg_scale and not sampling.end_penalty
        self.table = decoder.schedule.block_table(canvas)
        self.cache_state = decoder.cache.start(canvas, cache)
        self.acceptance_state = decoder.acceptance.start(canvas)
        self.stats = Stats(prefill_rows=(int(canvas.given.sum()) - cache.length) * len(self.lanes))
        self.commits = NO_COMMITS
        self.drafts = Drafts(canvas, decoder.editing) if decoder.editing else None
        self.extend()

    @property
    def done(self) -> bool:
        """Return whether every position has a token. A request that is done must not be planned again."""
        return self.canvas.done

    @property
    def cache(self) -> KVCache:
        """Return the cache, for a later request that begins with the same tokens."""
        return self.lanes[0].cache

    def carry_on(self, before: Stats) -> None:
        """Count forwards and rows from those of an earlier request of the same generation on."""
        self.stats = Stats(
            forwards=before.forwards, rows=before.rows, prefill_rows=before.prefill_rows + self.stats.prefill_rows
        )

    def release(self) -> None:
        """Drop the cache of a request that is done or canceled."""
        self.lanes = [Lane(lane.canvas, KVCache(0, lane.cache.keep, lane.cache.quantization)) for lane in self.lanes]

    def extend(self) -> None:
        """Extend the active part of the canvases as the schedule says."""
        for lane in self.lanes:
            lane.canvas.extend(active_end(self.table, self.decoder.schedule.ahead))

    def plan(self) -> None:
        """Choose the rows of the next forward and the positions that may commit in it."""
        self.active = ActiveBlocks.of(self.table)
        self.extend()
        plan, self.cache_state = self.decoder.cache.step(self.canvas, self.active, self.cache, self.cache_state)
        self.kind = plan.kind
        length = plan.length or self.canvas.active_length
        for lane in self.lanes:
            lane.canvas.extend(length)
        self.rows = RowIndex(plan.positions, length, plan.block_size)
        self.eligible = self.canvas.masked_before(self.active.end if plan.until is None else plan.until)
        if self.drafts is not None:
            self.eligible = self.drafts.eligible(self.eligible)

    def guide(self, logits: list[mx.array]) -> mx.array:
        """Return the logits [N, V] of the request, combined from those of its lanes, each [N, V].

        This is LLaDA's classifier-free guidance. The sampling's penalty is subtracted from the end token's logits.
        """
        guided, *unprompted = logits
        for other in unprompted:
            guided = other + (self.decoder.cfg_scale + 1) * (guided - other)
        if self.drawing.sampling.end_penalty and self.canvas.end_ids:
            is_end = mx.arange(guided.shape[-1]) == self.canvas.end_ids[0]
            guided = mx.where(is_end, guided - self.drawing.sampling.end_penalty, guided)
        return guided

    def accept(self, stats: TokenStats) -> mx.array | Ints:
        """Apply the acceptance rule to the statistics of the eligible rows, each [N].

        Return int32 [3 N], packed, an array of the library of the statistics.
        """
        block = self.active.first_full
        focus = block.start, block.end
        if self.drafts is None:
            rule = self.next_rule(self.eligible)
            return accept_blocks(self.with_ends_last(stats), self.eligible, focus, rule)
        masks = self.eligible[: self.drafts.masks]
        return self.drafts.accept(stats, self.eligible, self.next_rule(masks) if len(masks) else None, focus)

    def next_rule(self, positions: Ints) -> Rule:
        """Return the record that decides this step at `positions`."""
        candidates = Candidates(positions, self.active, self.kind, self.commits, self.drawing.noise)
        rule, self.acceptance_state = self.decoder.acceptance.rule(candidates, self.acceptance_state)
        return rule

    def with_ends_last(self, stats: TokenStats) -> TokenStats:
        """Return statistics as the rule takes them: for some, probability -1 for rows with an end token.

        This is LLaDA's confidence_eos_eot_inf.
        """
        if not self.decoder.acceptance.ends_last:
            return stats
        ends = np.array([*self.canvas.end_ids], np.int32)
        if isinstance(stats.sampled, mx.array):
            is_end = (stats.sampled[:, None] == on_device(ends)).any(axis=-1)
            return stats._replace(p_sampled=mx.where(is_end, -1.0, stats.p_sampled))
        return stats._replace(p_sampled=np.where(np.isin(stats.sampled, ends), np.float32(-1), stats.p_sampled))

    def settle(self, packed: Ints) -> Step:
        """Commit the accepted tokens, advance the blocks, and return the Step.

        packed: int32 [3 N], the result of `accept` on the host. Raises CheckpointError if the logits of a row contain
        NaN, which makes its entropy NaN too.
        """
        accepted = Accepted.unpack(packed)
        if np.isnan(accepted.entropies).any():
            raise CheckpointError(
                "The model's logits are not numbers (NaN). Its weights are damaged or overflow in this dtype. "
                "Download the model again, or convert it with another --dtype."
            )
        written, committing = NONE_WRITTEN, np.flatnonzero(accepted.tokens >= 0)
        if self.drafts is not None:
            order = np.argsort(self.eligible)
            self.eligible, accepted = self.eligible[order], accepted.at(order)
            written = self.drafts.write(self.eligible, accepted)
            committing = np.arange(len(order)) if self.drafts.final(self.eligible, written) else order[:0]
            accepted = accepted._replace(tokens=self.canvas.tokens[self.eligible])
        positions, tokens = self.eligible[committing], accepted.tokens[committing]
        filled, *_ = [lane.canvas.commit(positions, tokens) for lane in self.lanes]
        self.table = advance(self.table, self.canvas)
        self.commits = Commits(positions, accepted.entropies[committing])
        if self.canvas.block_size is not None:
            self.table = without_complete(self.table)
        rows, before = self.rows.count * len(self.lanes), self.stats
        self.stats = Stats(before.forwards + 1, before.rows + rows, before.prefill_rows, self.canvas.answered)
        return Step(
            index=before.forwards,
            kind=self.kind,
            positions=positions,
            tokens=tokens,
            entropies=self.commits.entropies,
            filled=filled,
            eligible=self.eligible,
            guesses=accepted.guesses,
            guess_entropies=accepted.entropies,
            blocks=self.active.blocks,
            rows=rows,
            stats=self.stats,
            written=written,
        )
