"""Which positions of the active blocks commit, and how the blocks stand afterwards: d3LLM's and Fast-dLLM's rules.

The rule of a decoder is a small record, `Rule`; the blocks are a table of integers. Both go in with the statistics of
the forwarded rows, and one small array of integers comes out, which is all that the host reads in a step.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.kernels import dispatch
from d3mlx.kernels.host import on_device
from d3mlx.kernels.reduction import reduction
from d3mlx.kernels.token_stats import TokenStats

Kind = Literal["entropy", "confidence", "factor", "opening"]

START, END, MASKS, STATE, ADD, FILL = range(6)
"""Columns of a block table, int32 [B, 6]: the span, its masked positions, what the block may do, and two limits.

ADD is the most masks with which the block after it is added, FILL the most with which that one becomes full.
"""

CLOSED, OPEN, FULL = range(3)
"""States: not added yet; commits what passes by itself; must also make progress."""


class Rule(NamedTuple):
    """What commits (d3LLM paper, entropy-based multi-block decoding; Fast-dLLM paper, parallel decoding).

    entropy: rows with entropy below `level` nats. confidence: rows whose drawn token has at least `level` probability.
    factor: the n most confident rows together, n the largest with (n + 1)(1 - p_n) <= `level`; as published, a scan
    that fails only at the last row takes that one too. opening: nothing passes.

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


THREADS = 256

HEADER = reduction("group_min", "int", "simd_min", "0x7FFFFFFF") + reduction(
    "group_max", "float", "simd_max", "-INFINITY"
)

SOURCE = """
  int me = int(thread_index_in_threadgroup);
  int threads = int(threads_per_threadgroup.x);
  uint lane = thread_index_in_simdgroup;
  uint group = simdgroup_index_in_threadgroup;
  uint groups = simdgroups_per_threadgroup;
  int rows = positions_shape[0];
  int blocks = table_shape[0];
  int finals = ends_shape[0];
  int nowhere = 0x7FFFFFFF;
  threadgroup int whole[32];
  threadgroup float real[32];

  int focus = nowhere;
  for (int b = me; b < blocks; b += threads) {
    if (table[b * 6 + 3] == 2 && table[b * 6 + 2] > 0) {
      focus = metal::min(focus, b);
    }
  }
  focus = group_min(focus, whole, lane, group, groups);
  int start = focus < blocks ? table[focus * 6] : 0;
  int stop = focus < blocks ? table[focus * 6 + 1] : 0;

  // The best row of all, the best of the focus, and for the factor rule the rank of every row.
  float top = -INFINITY;
  float top_inside = -INFINITY;
  int failed = rows - 1;
  for (int i = me; i < rows; i += threads) {
    float score = SCORE;
    top = metal::max(top, score);
    if (positions[i] >= start && positions[i] < stop) {
      top_inside = metal::max(top_inside, score);
    }
    if (RANKED) {
      int rank = 0;
      for (int j = 0; j < rows; j++) {
        float other = p_sampled[j];
        rank += other > score || (other == score && j < i) ? 1 : 0;
      }
      out[i] = rank;
      if (rank < rows && score < bounds[rank]) {
        failed = metal::min(failed, rank);
      }
    }
  }
  top = group_max(top, real, lane, group, groups);
  top_inside = group_max(top_inside, real, lane, group, groups);
  failed = group_min(failed, whole, lane, group, groups);
  int accepted = failed == rows - 1 ? rows : failed;

  int best = nowhere;
  int best_inside = nowhere;
  for (int i = me; i < rows; i += threads) {
    float score = SCORE;
    best = score == top ? metal::min(best, i) : best;
    if (positions[i] >= start && positions[i] < stop && score == top_inside) {
      best_inside = metal::min(best_inside, i);
    }
  }
  best = group_min(best, whole, lane, group, groups);
  best_inside = group_min(best_inside, whole, lane, group, groups);

  int none_passed = 1;
  for (int i = me; i < rows; i += threads) {
    float score = SCORE;
    bool passed = PASSED;
    passed = passed || (BEST_ALWAYS && i == best);
    out[i] = passed ? sampled[i] : -1;
    if (passed && positions[i] >= start && positions[i] < stop) {
      none_passed = 0;
    }
  }
  none_passed = group_min(none_passed, whole, lane, group, groups);

  int cut = table[(blocks - 1) * 6 + 1];
  for (int i = me; i < rows; i += threads) {
    if (none_passed == 1 && i == best_inside) {
      out[i] = FORCE_LIKELIEST ? token[i] : sampled[i];
    }
    for (int e = 0; e < finals; e++) {
      if (out[i] >= 0 && out[i] == ends[e]) {
        cut = metal::min(cut, positions[i] + 1);
      }
    }
    out[rows + i] = token[i];
    out[2 * rows + i] = as_type<int>(entropy[i]);
  }
  cut = group_min(cut, whole, lane, group, groups);

  threadgroup_barrier(mem_flags::mem_device);
  for (int b = me; b < blocks; b += threads) {
    int from = table[b * 6];
    int to = metal::min(table[b * 6 + 1], cut);
    int masks = 0;
    if (table[b * 6 + 3] == 0) {
      masks = metal::min(table[b * 6 + 2], metal::max(to - from, 0));
    } else {
      for (int i = 0; i < rows; i++) {
        masks += out[i] < 0 && positions[i] >= from && positions[i] < to ? 1 : 0;
      }
    }
    out[3 * rows + b] = masks;
  }
  threadgroup_barrier(mem_flags::mem_device);
  for (int b = me; b < blocks; b += threads) {
    int state = table[b * 6 + 3];
    if (b > 0) {
      int before = b - 1;
      int left = out[3 * rows + before];
      int filled = left <= table[before * 6 + 5] ? 2 : 1;
      if (state > 0) {
        state = metal::max(state, filled);
      } else if (table[before * 6 + 3] > 0 && left <= table[before * 6 + 4]) {
        state = filled;
      }
    }
    out[3 * rows + blocks + b] = state;
  }
"""

SCORES = {"entropy": "-entropy[i]", "opening": "0.0f"}
PASSED = {"factor": "out[i] < accepted", "opening": "false"}
INPUTS = ("token", "entropy", "sampled", "p_sampled", "positions", "table", "ends", "bounds", "level")


@cache
def kernel(kind: Kind, inclusive: bool) -> dispatch.Kernel:
    """The text for one kind of rule."""
    pieces = {
        "SCORE": SCORES.get(kind, "p_sampled[i]"),
        "PASSED": PASSED.get(kind, f"score {'>=' if inclusive else '>'} level"),
        "RANKED": "true" if kind == "factor" else "false",
    }
    source = SOURCE
    for place, piece in pieces.items():
        source = source.replace(place, piece)
    return dispatch.Kernel(f"accept_{kind}{'' if inclusive else '_below'}", INPUTS, ("out",), source, HEADER)


def launch(stats: TokenStats, positions: mx.array, table: mx.array, rule: Rule, ends: mx.array) -> dispatch.Launch:
    """One threadgroup for all rows and blocks."""
    bounds = on_device(factor_bounds(rule.level, positions.size)) if rule.kind == "factor" else mx.zeros(1)
    level = -rule.level if rule.kind == "entropy" else rule.level
    inputs: list[mx.array | int | float] = [stats.token, stats.entropy, stats.sampled, stats.p_sampled]
    inputs += [positions, table, ends, bounds, float(level)]
    size = 3 * positions.size + 2 * table.shape[0]
    flags = [("BEST_ALWAYS", rule.best_always), ("FORCE_LIKELIEST", rule.force_likeliest)]
    return dispatch.Launch(inputs, (THREADS, 1, 1), (THREADS, 1, 1), [(size,)], [mx.int32], flags)


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
        passed = together(scores, rule.level)
    elif rule.kind == "opening":
        passed = mx.zeros(scores.shape, mx.bool_)
    else:
        level = mx.array(-rule.level if rule.kind == "entropy" else rule.level, mx.float32)
        passed = scores >= level if rule.inclusive else scores > level
    return passed | best_of(scores, mx.ones(scores.shape, mx.bool_)) if rule.best_always else passed


def together(scores: mx.array, factor: float) -> mx.array:
    """The rows that the factor rule takes, [N]."""
    ranked = mx.argsort(-scores)
    failed = scores[ranked] < on_device(factor_bounds(factor, scores.size))
    last = scores.size - 1
    count = mx.where(failed.any(), mx.argmax(failed), last)
    # As published: a scan that fails nowhere, or only at the last row, takes that row too.
    count = mx.where(count == last, last + 1, count)
    return mx.put_along_axis(mx.zeros(scores.shape, mx.bool_), ranked, mx.arange(scores.size) < count, axis=0)


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


def states_after(masks: Any, table: Any, xp: Any) -> Any:
    """States of the blocks [B] given their masks [B]: activation, and the one block that a step may add.

    xp: the library of both arrays, NumPy or MLX, so that a host rule's step moves blocks by the same lines.
    """
    states = table[:, STATE]
    before, left = states[:-1], masks[:-1]
    fills = xp.where(left <= table[:-1, FILL], FULL, OPEN)
    opened = xp.where((before > CLOSED) & (left <= table[:-1, ADD]), fills, CLOSED)
    grown = xp.where(states[1:] == CLOSED, opened, xp.maximum(states[1:], fills))
    return xp.concatenate([states[:1], grown])


def accept_blocks(
    stats: TokenStats, positions: npt.NDArray[np.int32], table: npt.NDArray[np.int32], rule: Rule, ends: tuple[int, ...]
) -> mx.array:
    """Apply `rule` to the masked positions of the open blocks.

    stats: of their rows, each [N]. positions: theirs, ascending [N]. table [B, 6]: the blocks before the step; one of
    them is full and has masks. ends: tokens after which nothing is decoded any more. Returns int32 [3 N + 2 B], which
    `Accepted.unpack` reads.
    """
    # Never a token, so that there is at least one.
    inputs = stats, on_device(positions), on_device(table), rule, mx.array([-1, *ends], mx.int32)
    if not dispatch.on_gpu():
        return reference(*inputs)
    (out,) = dispatch.run(kernel(rule.kind, rule.inclusive), launch(*inputs))
    return out
