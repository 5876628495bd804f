"""Which positions of the active blocks commit, and how the blocks stand afterwards: d3LLM's and Fast-dLLM's rules.

The rule of a decoder is a small record, `Rule`; the blocks are a table of integers. Both go in with the statistics of
the forwarded rows, and one small array of integers comes out, which is all that the host reads in a step.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.kernels.token_stats import TokenStats

Kind = Literal["entropy", "confidence", "factor", "opening"]

START, END, MASKS, STATE, ADD, FILL = range(6)
"""Columns of a block table, int32 [B, 6]: the span, its masked positions, what the block may do, and two limits.

ADD is the most masks with which the block after it is added, FILL the most with which that one becomes full.
"""

CLOSED, OPEN, FULL = range(3)
"""States: not added yet; commits what passes by itself; must also make progress."""

Table = Any
"""A block table, in NumPy or in MLX."""


class Rule(NamedTuple):
    """What commits (d3LLM paper, entropy-based multi-block decoding; Fast-dLLM paper, parallel decoding).

    entropy: rows with entropy below `level` nats. confidence: rows whose drawn token has at least `level` probability.
    factor: the n most confident rows together, n the largest with (n + 1)(1 - p_n) < `level`; as published, a scan that
    fails only at the last row takes that one too. opening: nothing passes.

    inclusive: an entropy equal to `level` passes. best_always: so does the best row of all. Whatever the rule, a step
    in which nothing of the first full block passes commits its best row (`opening`: its first) all the same, and with
    `force_likeliest` that row takes its most likely token instead of the drawn one.
    """

    kind: Kind
    level: float = 0.0
    inclusive: bool = True
    best_always: bool = False
    force_likeliest: bool = False


class Accepted(NamedTuple):
    """What the host reads. tokens [N]: the token that commits, -1 where none does. guesses, entropies [N]: of every
    row. masks, states [B]: the block table's columns after the step."""

    tokens: npt.NDArray[np.int32]
    guesses: npt.NDArray[np.int32]
    entropies: npt.NDArray[np.float32]
    masks: npt.NDArray[np.int32]
    states: npt.NDArray[np.int32]

    @classmethod
    def unpack(cls, packed: npt.NDArray[np.int32], rows: int) -> Accepted:
        """From what `accept_blocks` gave for N = `rows`."""
        tokens, guesses, entropies, blocks = np.split(packed, [rows, 2 * rows, 3 * rows])
        masks, states = np.split(blocks, 2)
        return cls(tokens, guesses, entropies.view(np.float32), masks, states)


def accept_blocks(
    stats: TokenStats, positions: npt.NDArray[np.int32], table: npt.NDArray[np.int32], rule: Rule, ends: tuple[int, ...]
) -> mx.array:
    """Apply `rule` to the masked positions of the open blocks.

    stats: of their rows, each [N]. positions: theirs, ascending [N]. table [B, 6]: the blocks before the step; one of
    them is full and has masks. ends: tokens after which nothing is decoded any more. Returns int32 [3 N + 2 B], which
    `Accepted.unpack` reads.
    """
    return reference(stats, mx.array(positions), mx.array(table), rule, mx.array([-1, *ends]))


def reference(stats: TokenStats, positions: mx.array, table: mx.array, rule: Rule, ends: mx.array) -> mx.array:
    """The rules in MLX operations."""
    focus = mx.argmax((table[:, STATE] == FULL) & (table[:, MASKS] > 0))
    inside = (positions >= table[focus, START]) & (positions < table[focus, END])
    scores = {"entropy": -stats.entropy, "opening": mx.zeros(positions.shape)}.get(rule.kind, stats.p_sampled)
    passed = passes(scores, rule)
    forced = best_of(scores, inside) & ~(passed & inside).any()
    tokens = mx.where(forced & rule.force_likeliest, stats.token, stats.sampled)
    tokens = mx.where(passed | forced, tokens, -1)
    masks = masks_after(tokens, positions, table, ends)
    states = states_after(masks, table, mx)
    entropies = stats.entropy.view(mx.int32)
    return mx.concatenate([tokens, stats.token, entropies, masks.astype(mx.int32), states.astype(mx.int32)])


def best_of(scores: mx.array, among: mx.array) -> mx.array:
    """True for the one row with the highest score; the first wins a tie."""
    highest = mx.where(among, scores, -mx.inf).max()
    chosen = mx.argmax(among & (scores == highest))
    return mx.arange(scores.size) == chosen


def passes(scores: mx.array, rule: Rule) -> mx.array:
    """Rows that commit by themselves, [N]."""
    if rule.kind == "factor":
        ranked = mx.argsort(-scores)
        failed = scores[ranked] < mx.array(factor_bounds(rule.level, scores.size))
        last = scores.size - 1
        count = mx.where(failed.any(), mx.argmax(failed), last)
        # As published: a scan that fails nowhere, or only at the last row, takes that row too.
        count = mx.where(count == last, last + 1, count)
        return mx.put_along_axis(mx.zeros(scores.shape, mx.bool_), ranked, mx.arange(scores.size) < count, axis=0)
    if rule.kind == "opening":
        return mx.zeros(scores.shape, mx.bool_)
    level = mx.array(-rule.level if rule.kind == "entropy" else rule.level, mx.float32)
    passed = scores >= level if rule.inclusive else scores > level
    return passed | best_of(scores, mx.ones(scores.shape, mx.bool_)) if rule.best_always else passed


def factor_bounds(factor: float, rows: int) -> npt.NDArray[np.float32]:
    """[N]: the n-th most confident row passes with at least this probability; the first always does.

    Rounded up, so that a float32 probability compares as it would with the exact bound.
    """
    exact = 1 - factor / (np.arange(1, rows + 1) + 1)
    bounds = exact.astype(np.float32)
    bounds = np.where(bounds < exact, np.nextafter(bounds, np.float32(np.inf)), bounds)
    bounds[0] = -1
    return bounds


def masks_after(tokens: mx.array, positions: mx.array, table: mx.array, ends: mx.array) -> mx.array:
    """Masked positions of each block [B] once `tokens` are committed and everything behind an end token is filled."""
    ended = (tokens[:, None] == ends).any(axis=1) & (tokens >= 0)
    cut = mx.where(ended, positions + 1, table[-1, END]).min()
    left = (tokens < 0) & (positions < cut)
    starts, stops = table[:, START, None], table[:, END, None]
    counted = ((positions >= starts) & (positions < stops) & left).sum(axis=1)
    behind = mx.maximum(mx.minimum(table[:, END], cut) - table[:, START], 0)
    return mx.where(table[:, STATE] > CLOSED, counted, mx.minimum(table[:, MASKS], behind))


def states_after(masks: Any, table: Table, xp: Any) -> Any:
    """States of the blocks [B] given their masks [B]: activation, and the one block that a step may add.

    xp: the library of both arrays, NumPy or MLX, so that a host rule's step moves blocks by the same lines.
    """
    states = table[:, STATE]
    before, left = states[:-1], masks[:-1]
    fills = xp.where(left <= table[:-1, FILL], FULL, OPEN)
    opened = xp.where((before > CLOSED) & (left <= table[:-1, ADD]), fills, CLOSED)
    grown = xp.where(states[1:] == CLOSED, opened, xp.maximum(states[1:], fills))
    return xp.concatenate([states[:1], grown])
