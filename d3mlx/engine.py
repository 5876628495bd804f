"""The decode loop: plan rows, forward, token statistics, accept, commit, report.

Knows nothing of tokenizers, terminals or files. Forwards, rows and committed tokens are counted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.cache import Rows, Store
from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.acceptance import Decision, Facts
from d3mlx.decoding.presets import Decoder
from d3mlx.decoding.rows import Kind, Plan
from d3mlx.decoding.sampling import Noise, Sampling
from d3mlx.decoding.schedule import Block, View, moved, reach
from d3mlx.errors import CheckpointError
from d3mlx.kernels.accept_blocks import MASKS, STATE, Accepted, Rule, accept_blocks
from d3mlx.kernels.host import on_device
from d3mlx.kernels.token_stats import TokenStats, token_stats
from d3mlx.models import DiffusionModel
from d3mlx.stages import current


@dataclass(frozen=True)
class Stats:
    """Totals so far.

    rows: positions forwarded, over all forwards (a guided forward counts both its sequences). prefill_rows: those of
    them that were the prompt in the first forward. tokens: committed ones up to and including the first end token.
    """

    forwards: int = 0
    rows: int = 0
    prefill_rows: int = 0
    tokens: int = 0

    @property
    def tokens_per_forward(self) -> float:
        """TPF."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def rows_per_token(self) -> float:
        """RPT."""
        return self.rows / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Step:
    """One denoising iteration. Positions count from the end of the prompt.

    positions, tokens, entropies: what committed, ascending, with the entropy in nats at that moment. filled: positions
    that the end of the answer filled. eligible, guesses, guess_entropies: every position that could have committed and
    its most likely token. blocks: as they stood before the forward. rows: positions this forward computed. text: what
    became readable, filled in by `stream_generate` when there is a tokenizer.
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


def read(arrays: Sequence[mx.array]) -> list[npt.NDArray[Any]]:
    """Bring arrays to the host: the one synchronisation of a step."""
    mx.eval(arrays)
    return [np.array(array) for array in arrays]


@dataclass(frozen=True)
class Outcome:
    """What a step came to. eligible: positions that could commit; chosen: which of them did, ascending; tokens: theirs.

    filled: positions that the end of the answer filled. guesses, entropies: of every eligible position. table: the
    blocks afterwards.
    """

    eligible: Ints
    chosen: Ints
    tokens: Ints
    filled: Ints
    guesses: Ints
    entropies: npt.NDArray[np.float32]
    table: Ints


def check_numbers(entropies: npt.NDArray[np.float32]) -> None:
    """Raise CheckpointError if a row's logits were not numbers: then neither is its entropy."""
    if np.isnan(entropies).any():
        raise CheckpointError(
            "The model's logits are not numbers (NaN); its weights are damaged or overflow in this dtype."
        )


class Forward:
    """The model side of one request: its cache, its guidance, its noise."""

    def __init__(self, model: DiffusionModel, canvas: Canvas, decoder: Decoder, sampling: Sampling, noise: Noise):
        self.model, self.canvas, self.decoder, self.sampling, self.noise = model, canvas, decoder, sampling, noise
        self.store = Store(len(model.layers), keep=decoder.rows.cached, packing=decoder.kv)
        self.sequences = 2 if decoder.cfg_scale else 1
        self.stages = current()

    def ids(self, plan: Plan) -> mx.array:
        """[B, R]: the rows' tokens, and for guidance those of a canvas whose prompt is masked."""
        if self.sequences == 1:
            return on_device(self.canvas.tokens)[on_device(plan.positions)][None]
        prompt = np.arange(len(self.canvas)) < self.canvas.prompt_length
        unprompted = np.where(prompt, self.canvas.mask_id, self.canvas.tokens)
        return on_device(np.stack([self.canvas.tokens, unprompted]))[:, on_device(plan.positions)]

    def logits(self, plan: Plan, wanted: Ints) -> mx.array:
        """Run the planned rows; return logits [N, V] for the tokens at the N wanted positions."""
        rows = Rows(plan.positions, self.canvas.reach)
        fresh = self.model.hidden(self.ids(plan), rows.positions, self.store.open(rows))
        hidden = self.store.write_hidden(rows, fresh)
        source = on_device(np.maximum(wanted - self.model.shift, 0))
        logits = self.model.logits(hidden[:, source])
        if self.sequences == 1:
            return logits[0]
        prompted, unprompted = logits[0], logits[1]
        return unprompted + (self.decoder.cfg_scale + 1) * (prompted - unprompted)

    def statistics(self, logits: mx.array, wanted: Ints) -> TokenStats:
        """Statistics of logits [N, V] for the N wanted positions, and the tokens drawn there."""
        sampling, mask_id = self.sampling, self.canvas.mask_id
        filtered = self.decoder.acceptance.filtered_statistics
        if filtered:
            logits = sampling.filtered(logits, mask_id)
        if sampling.temperature == 0:
            return token_stats(logits, mask_id)
        positions = on_device(wanted)
        if self.noise.in_kernels and (filtered or not sampling.truncates):
            return token_stats(logits, mask_id, self.noise.draw(positions, 1.0 if filtered else sampling.temperature))
        kept = logits if filtered else sampling.filtered(logits, mask_id)
        return token_stats(logits, mask_id, kept + self.noise.gumbel(positions, kept.shape[-1]))

    def step(self, table: Ints, view: View, plan: Plan, state: Any) -> tuple[Outcome, Any]:
        """Forward, decide, and move the blocks on; the acceptance rule's next state."""
        wanted = self.canvas.masked_before(view.end)
        logits = self.logits(plan, wanted)
        self.stages.reached("forward", [logits])
        stats = self.statistics(logits, wanted)
        rule = self.decoder.acceptance.rule(plan.kind)
        if isinstance(rule, Rule):
            return self.on_device(stats, wanted, table, rule), state
        token, p, p2, entropy, sampled, p_sampled = read(stats)
        check_numbers(entropy)
        facts = Facts(wanted, token, p, p2, entropy, sampled, p_sampled, view, self.noise)
        decision, state = rule.step(facts, state)
        return self.on_host(facts, decision, table), state

    def on_host(self, facts: Facts, decision: Decision, table: Ints) -> Outcome:
        """What a host rule's decision comes to."""
        order = np.argsort(decision.chosen)
        chosen, tokens = decision.chosen[order], decision.tokens[order]
        filled = self.commit(facts.positions[chosen], tokens)
        masks = np.array([self.canvas.masks_in(start, end) for start, end, *_ in table], np.int32)
        return Outcome(facts.positions, chosen, tokens, filled, facts.token, facts.entropy, moved(table, masks))

    def on_device(self, stats: TokenStats, wanted: Ints, table: Ints, rule: Rule) -> Outcome:
        """What a record comes to, applied where the statistics are."""
        ends = self.canvas.end_ids if self.canvas.early_stop else ()
        (packed,) = read([accept_blocks(stats, wanted, table, rule, ends)])
        accepted = Accepted.unpack(packed, len(wanted))
        check_numbers(accepted.entropies)
        chosen = np.flatnonzero(accepted.tokens >= 0).astype(np.int32)
        tokens = accepted.tokens[chosen]
        filled = self.commit(wanted[chosen], tokens)
        after = table.copy()
        after[:, MASKS], after[:, STATE] = accepted.masks, accepted.states
        return Outcome(wanted, chosen, tokens, filled, accepted.guesses, accepted.entropies, after)

    def commit(self, positions: Ints, tokens: Ints) -> Ints:
        """Positions that the end of the answer filled."""
        self.stages.reached("acceptance")
        self.canvas.commit(positions, tokens)
        return self.canvas.settle()


def decode(
    model: DiffusionModel,
    canvas: Canvas,
    decoder: Decoder,
    sampling: Sampling | None = None,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Denoise `canvas` in place, one Step for each forward.

    Raises CheckpointError if the model's logits are not numbers.
    """
    sampling = sampling or Sampling()
    forward = Forward(model, canvas, decoder, sampling, noise or Noise(sampling.seed))
    forward.stages.begin()
    table = decoder.schedule.table(canvas)
    rows_state = decoder.rows.start(canvas)
    acceptance_state = decoder.acceptance.start(canvas)
    stats = Stats(prefill_rows=canvas.prompt_length * forward.sequences)
    while not canvas.done:
        view = View.of(table)
        canvas.grow(reach(table, decoder.schedule.ahead))
        plan, rows_state = decoder.rows.step(canvas, view, rows_state)
        forward.stages.reached("plan")
        outcome, acceptance_state = forward.step(table, view, plan, acceptance_state)
        table = outcome.table
        rows = len(plan.positions) * forward.sequences
        stats = Stats(stats.forwards + 1, stats.rows + rows, stats.prefill_rows, canvas.answered)
        step = Step(
            index=stats.forwards - 1,
            kind=plan.kind,
            positions=outcome.eligible[outcome.chosen] - canvas.prompt_length,
            tokens=outcome.tokens,
            entropies=outcome.entropies[outcome.chosen],
            filled=outcome.filled - canvas.prompt_length,
            eligible=outcome.eligible - canvas.prompt_length,
            guesses=outcome.guesses,
            guess_entropies=outcome.entropies,
            blocks=tuple(
                Block(b.start - canvas.prompt_length, b.end - canvas.prompt_length, b.masks, b.full)
                for b in view.blocks
            ),
            rows=rows,
            stats=stats,
        )
        forward.stages.reached("commit")
        yield step
        forward.stages.reached("consumers")
