"""The kernel that chooses the positions to commit by the rules of d3LLM, Fast-dLLM and the models' own samplers.

A decoder's rule for one step is a small record, `Rule`. The inputs are a rule and the statistics of the eligible rows.
The output is one small array of integers, the only result of a step that the host reads.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.kernels import dispatch, guard
from d3mlx.kernels.dispatch import on_device, reduction
from d3mlx.kernels.token_stats import TokenStats

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Kind = Literal["confidence", "entropy", "margin", "random", "factor", "opening"]


class Rule(NamedTuple):
    """The rule of one step (sampling in the LLaDA, Dream, Fast-dLLM and d3LLM papers).

    kind: how a row is scored. confidence: the probability of its drawn token. entropy: minus its entropy in nats.
    margin: its highest probability minus the second highest. random: only by `noise`. factor: as confidence, and the n
    best rows pass together, n the largest with (n + 1)(1 - p_n) <= `level`; as published, a scan that fails only at the
    last row takes that row too. opening: no row passes.

    level: rows with at least this score pass; for entropy, rows with at most this many nats. most: at most this many of
    the best rows pass. least: at least this many of the best rows pass; not together with `most`. inclusive: a score
    equal to `level` passes. best_always: the best row of all always passes.
    progress: if no row of the focus passes, its best row commits (`opening`: its first row). force_likeliest: that row
    takes its most likely token instead of the drawn one. noise: float32 [N] or None, random numbers or allowances that
    are added to the scores after they are divided by `heat`. If scores are equal, the lower position is better.
    """

    kind: Kind
    level: float = -math.inf
    most: int | None = None
    least: int | None = None
    inclusive: bool = True
    best_always: bool = False
    progress: bool = True
    force_likeliest: bool = False
    noise: Floats | None = None
    heat: float = 1.0

    @property
    def threshold(self) -> float:
        """Return the lowest score that passes."""
        return -self.level if self.kind == "entropy" else self.level


class Accepted(NamedTuple):
    """The result of a step on the host, one entry per eligible row, each [N].

    tokens: int32, the token that commits, or -1. guesses: int32, the most likely token. entropies: float32, in nats.
    """

    tokens: npt.NDArray[np.int32]
    guesses: npt.NDArray[np.int32]
    entropies: npt.NDArray[np.float32]

    @classmethod
    def unpack(cls, packed: npt.NDArray[np.int32]) -> Accepted:
        """Split the result of `accept_blocks`, int32 [3 N]."""
        rows = len(packed) // 3
        return cls(packed[:rows], packed[rows : 2 * rows], packed[2 * rows :].view(np.float32))

    def at(self, rows: npt.NDArray[np.intp]) -> Accepted:
        """Return the entries of these rows, in their order."""
        return Accepted(self.tokens[rows], self.guesses[rows], self.entropies[rows])


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
  int start = focus[0];
  int stop = focus[1];
  int nowhere = 0x7FFFFFFF;
  threadgroup int whole[32];
  threadgroup float real[32];

  // The best row of all, the best of the focus, and for rules with a count the rank of every row.
  float top = -INFINITY;
  float top_inside = -INFINITY;
  int failed = rows - 1;
  for (int i = me; i < rows; i += threads) {
    float score = SCORE_OF_I;
    top = metal::max(top, score);
    if (positions[i] >= start && positions[i] < stop) {
      top_inside = metal::max(top_inside, score);
    }
    // RANK
  }
  top = group_max(top, real, lane, group, groups);
  top_inside = group_max(top_inside, real, lane, group, groups);
  // LIMIT

  int best = nowhere;
  int best_inside = nowhere;
  for (int i = me; i < rows; i += threads) {
    float score = SCORE_OF_I;
    best = score == top ? metal::min(best, i) : best;
    if (positions[i] >= start && positions[i] < stop && score == top_inside) {
      best_inside = metal::min(best_inside, i);
    }
  }
  best = group_min(best, whole, lane, group, groups);
  best_inside = group_min(best_inside, whole, lane, group, groups);

  int none_passed = PROGRESS ? 1 : 0;
  for (int i = me; i < rows; i += threads) {
    float score = SCORE_OF_I;
    bool passed = PASSED;
    passed = passed || (BEST_ALWAYS && i == best);
    out[i] = passed ? sampled[i] : -1;
    if (passed && positions[i] >= start && positions[i] < stop) {
      none_passed = 0;
    }
  }
  none_passed = group_min(none_passed, whole, lane, group, groups);

  for (int i = me; i < rows; i += threads) {
    if (none_passed == 1 && i == best_inside) {
      out[i] = FORCE_LIKELIEST ? token[i] : sampled[i];
    }
    out[rows + i] = token[i];
    out[2 * rows + i] = as_type<int>(entropy[i]);
  }
"""

RANK = """int rank = 0;
    for (int j = 0; j < rows; j++) {
      float other = SCORE_OF_J;
      rank += other > score || (other == score && j < i) ? 1 : 0;
    }
    out[i] = rank;"""
RANK_OF_FACTOR = """
    if (rank < rows && score < bounds[rank]) {
      failed = metal::min(failed, rank);
    }"""
LIMIT_OF_FACTOR = """failed = group_min(failed, whole, lane, group, groups);
  int limit = failed == rows - 1 ? rows : failed;"""

SCORES = {
    "entropy": "-entropy[AT]",
    "margin": "p[AT] - p2[AT]",
    "random": "0.0f",
    "opening": "0.0f",
}
INPUTS = (*TokenStats._fields, "positions", "focus", "noise", "bounds", "threshold", "heat", "most")


@cache
def kernel(
    kind: Kind, inclusive: bool = True, counted: Literal["", "most", "least"] = "", noisy: bool = False
) -> dispatch.Kernel:
    """Return the kernel for one kind of rule. counted: the bound that the rule has. noisy: the rule has `noise`."""
    score = SCORES.get(kind, "p_sampled[AT]")
    if noisy:
        score = f"({score}) / heat + noise[AT]"
    rank = RANK + RANK_OF_FACTOR if kind == "factor" else RANK if counted else ""
    limit = LIMIT_OF_FACTOR if kind == "factor" else "int limit = most;" if counted else ""
    passed = f"score {'>=' if inclusive else '>'} threshold"
    if counted:
        passed += " && out[i] < limit" if counted == "most" else " || out[i] < limit"
    pieces = {
        "// RANK": rank,
        "// LIMIT": limit,
        "PASSED": {"factor": "out[i] < limit", "opening": "false"}.get(kind, passed),
        "SCORE_OF_I": score.replace("AT", "i"),
        "SCORE_OF_J": score.replace("AT", "j"),
    }
    source = dispatch.fill(SOURCE, pieces)
    endings = [("_below", not inclusive), ("_best", counted == "most")]
    endings += [("_least", counted == "least"), ("_noisy", noisy)]
    name = f"accept_{kind}" + "".join(ending for ending, applies in endings if applies)
    return dispatch.Kernel(name, INPUTS, ("out",), source, HEADER)


def kernel_of(rule: Rule) -> dispatch.Kernel:
    counted: Literal["", "most", "least"] = "most" if rule.most is not None else ""
    return kernel(rule.kind, rule.inclusive, "least" if rule.least is not None else counted, rule.noise is not None)


NONE = on_device(np.zeros(1, np.float32))
"""In place of an input that a rule does not have."""


def launch(stats: TokenStats, positions: Ints, focus: tuple[int, int], rule: Rule) -> dispatch.Launch:
    """Return the launch: one threadgroup for all rows."""
    rows = len(positions)
    noise = NONE if rule.noise is None else on_device(rule.noise)
    bounds = on_device(factor_bounds(rule.level, rows)) if rule.kind == "factor" else NONE
    bound = rule.most if rule.least is None else rule.least
    most = rows if bound is None else min(bound, rows)
    inputs: list[mx.array | int | float] = [*map(on_device, stats), on_device(positions)]
    inputs += [mx.array(focus, mx.int32), noise, bounds]
    inputs += [float(rule.threshold), float(rule.heat), most]
    flags = [("BEST_ALWAYS", rule.best_always), ("PROGRESS", rule.progress), ("FORCE_LIKELIEST", rule.force_likeliest)]
    return dispatch.Launch(inputs, (THREADS, 1, 1), (THREADS, 1, 1), [(3 * rows,)], [mx.int32], flags)


def reference(stats: TokenStats, positions: Ints, focus: tuple[int, int], rule: Rule) -> Ints:
    """Return the result of the kernel, int32 [3 N], computed with NumPy. The statistics are NumPy's too."""
    scores = scores_of(stats, rule)
    passed = passes(scores, rule)
    if rule.best_always:
        passed[scores.argmax()] = True
    tokens = np.where(passed, stats.sampled, np.int32(-1))
    if rule.progress:
        inside = np.flatnonzero((positions >= focus[0]) & (positions < focus[1]))
        if not passed[inside].any():
            best = inside[scores[inside].argmax()]
            tokens[best] = (stats.token if rule.force_likeliest else stats.sampled)[best]
    return np.concatenate([tokens, stats.token, stats.entropy.view(np.int32)])


def scores_of(stats: TokenStats, rule: Rule) -> Floats:
    """Return the score of every row, float32 [N]."""
    if rule.kind == "entropy":
        scores = -stats.entropy
    elif rule.kind == "margin":
        scores = stats.p - stats.p2
    elif rule.kind in ("random", "opening"):
        scores = np.zeros_like(stats.p)
    else:
        scores = stats.p_sampled
    return scores if rule.noise is None else scores / np.float32(rule.heat) + rule.noise


def passes(scores: Floats, rule: Rule) -> npt.NDArray[np.bool_]:
    """Return bool [N], True for the rows that pass by their score or their rank."""
    if rule.kind == "opening":
        return np.zeros(len(scores), bool)
    if rule.kind == "factor":
        return ranks(scores) < together(scores, rule.level)
    threshold = np.float32(rule.threshold)
    passed = scores >= threshold if rule.inclusive else scores > threshold
    if rule.most is not None:
        passed &= ranks(scores) < rule.most
    if rule.least is not None:
        passed |= ranks(scores) < rule.least
    return passed


def ranks(scores: Floats) -> npt.NDArray[np.intp]:
    """Return the rank of each row by descending score, [N]. If scores are equal, the first row is better."""
    ranked = np.empty(len(scores), np.intp)
    ranked[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranked


def together(scores: Floats, factor: float) -> int:
    """Return the number of rows that the factor rule takes."""
    failed = np.flatnonzero(np.sort(scores)[::-1] < factor_bounds(factor, len(scores)))
    last = len(scores) - 1
    count = int(failed[0]) if len(failed) else last
    # As published: a scan that fails nowhere, or only at the last row, takes that row too.
    return len(scores) if count == last else count


def factor_bounds(factor: float, rows: int) -> Floats:
    """Return float32 [N], the lowest probability with which the n-th most confident row passes; the first always does.

    Bounds are rounded up, so that the comparison with a float32 probability gives the same result as the exact bound.
    """
    exact = 1 - factor / (np.arange(1, rows + 1) + 1)
    bounds = exact.astype(np.float32)
    bounds = np.where(bounds < exact, np.nextafter(bounds, np.float32(np.inf)), bounds)
    bounds[0] = -1
    return bounds


def accept_blocks(stats: TokenStats, positions: Ints, focus: tuple[int, int], rule: Rule) -> mx.array | Ints:
    """Apply `rule` to the eligible positions. Return int32 [3 N], which `Accepted.unpack` reads.

    stats: those of the rows at the positions, each [N]; the result is an array of the same library. positions: int32
    [N], ascending, at least one. focus: [start, end) of the block that must make progress, which contains an eligible
    position.
    """
    if not isinstance(stats.token, mx.array):
        return reference(stats, positions, focus, rule)
    (out,) = guard.call(
        kernel_of(rule),
        lambda: launch(stats, positions, focus, rule),
        lambda: [reference(TokenStats(*map(dispatch.on_host, stats)), positions, focus, rule)],
    )
    return out
