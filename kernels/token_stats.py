"""The kernel that computes statistics of rows of logits for acceptance rules, and the drawn tokens.

All results are computed in float32 whatever the dtype of the logits, because ties and near ties are common in half
precision. The Metal kernel reads a row once and keeps running sums, as in online softmax (Milakov and Gimelshein,
arXiv:1805.02867). One more sum gives the entropy. It needs no array of probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.kernels import dispatch, guard, noise
from d3mlx.kernels.dispatch import on_device


class TokenStats(NamedTuple):
    """Statistics of rows of logits, each [N]. Probabilities are those of the softmax at temperature 1.

    token: int32, the id with the highest logit; the lowest id wins a tie. p, p2: float32, the highest and the second
    highest probability. entropy: float32, in nats. sampled: int32, the drawn token. p_sampled: float32, its
    probability. The excluded id is never `token` or `sampled` but stays in the softmax. A row of only -inf gives the
    lowest allowed id, p 0 and entropy +inf. A row with NaN or +inf gives entropy NaN.
    """

    token: mx.array
    p: mx.array
    p2: mx.array
    entropy: mx.array
    sampled: mx.array
    p_sampled: mx.array


@dataclass(frozen=True, eq=False)
class Draw:
    """Gumbel-max sampling: the drawn id is the argmax of logits / temperature + noise, per row.

    The arrays are NumPy's, each [N]. positions: int32, absolute. temperatures: float32; at 0 the row takes its most
    likely token. seeds, calls: uint32; with the positions, they determine the noise of every id.
    """

    positions: npt.NDArray[np.int32]
    temperatures: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.uint32]
    calls: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, positions: npt.NDArray[np.int32], temperature: float, seed: int, call: int) -> Draw:
        """Return a draw with one temperature, seed and call for all rows."""
        rows = len(positions)
        temperatures = np.full(rows, temperature, np.float32)
        return cls(positions, temperatures, np.full(rows, seed, np.uint32), np.full(rows, call, np.uint32))

    @classmethod
    def join(cls, draws: Sequence[Draw]) -> Draw:
        """Return one draw for the concatenated rows of all draws."""
        return cls(
            np.concatenate([draw.positions for draw in draws]),
            np.concatenate([draw.temperatures for draw in draws]),
            np.concatenate([draw.seeds for draw in draws]),
            np.concatenate([draw.calls for draw in draws]),
        )

    @property
    def greedy(self) -> bool:
        """Return whether every row takes its most likely token."""
        return not self.temperatures.any()

    def scores(self, logits: mx.array) -> mx.array:
        """Return noisy logits, float32 [N, V], whose argmax is the drawn token. logits: [N, V]."""
        if self.greedy:
            return logits.astype(mx.float32)
        index = noise.pair_indices(on_device(self.positions), logits.shape[-1])
        seeds, calls = on_device(self.seeds)[:, None], on_device(self.calls)[:, None]
        drawn = noise.gumbel(noise.mixed(index, seeds, calls, noise.mx_const))
        x, heat = logits.astype(mx.float32), on_device(self.temperatures)[:, None]
        return mx.where(heat > 0, x / mx.where(heat > 0, heat, 1.0) + drawn, x)


Choice = Draw | mx.array | None
"""How the sampled token is chosen: by a draw, as the argmax of given scores [N, V], or as the argmax of the logits."""

THREADS = 512
READS = 4

HEADER = """
constant uint NO_TOKEN = 0xFFFFFFFFu;

// Statistics of the part of a row that was read.
struct Row {
  float top;       // largest logit
  float total;     // sum of exp(x - top)
  float weighted;  // sum of (x - top) exp(x - top)
  float best;      // largest allowed logit
  float second;
  uint token;
  float score;     // largest score
  float drawn_logit;
  uint drawn;
};

inline Row empty_row() {
  Row row;
  row.top = row.best = row.second = row.score = row.drawn_logit = -INFINITY;
  row.total = row.weighted = 0.0f;
  row.token = row.drawn = NO_TOKEN;
  return row;
}

// Rescale the sums to a larger top. A sum that underflows is set to zero, because 0 * -inf would be NaN.
inline void raise_top(thread Row& row, float top) {
  float shift = row.total == 0.0f ? 0.0f : row.top - top;
  float scale = metal::exp(shift);
  row.weighted = scale > 0.0f ? scale * (row.weighted + row.total * shift) : 0.0f;
  row.total *= scale;
  row.top = top;
}

inline void merge_lanes(thread Row& row) {
  raise_top(row, simd_max(row.top));
  row.total = simd_sum(row.total);
  row.weighted = simd_sum(row.weighted);

  float best = simd_max(row.best);
  uint token = simd_min(row.best == best ? row.token : NO_TOKEN);
  row.second = simd_max(row.token == token ? row.second : row.best);
  row.best = best;
  row.token = token;

  float score = simd_max(row.score);
  uint drawn = simd_min(row.score == score ? row.drawn : NO_TOKEN);
  row.drawn_logit = simd_max(row.drawn == drawn ? row.drawn_logit : -INFINITY);
  row.score = score;
  row.drawn = drawn;
}

// NaN if any logit was NaN: the comparison with 0 is False then, and the division gives NaN.
inline float probability(thread const Row& row, float x) {
  return row.total == 0.0f ? 0.0f : metal::exp(x - row.top) / row.total;
}
"""

SOURCE = """
  uint n = threadgroup_position_in_grid.x;
  uint lane = thread_index_in_simdgroup;
  uint group = simdgroup_index_in_threadgroup;
  uint width = uint(logits_shape[1]);
  uint barred = uint(excluded);
  size_t base = size_t(n) * size_t(width);
  threadgroup Row shared[32];
  // PREPARE

  Row row = empty_row();
  uint stride = threads_per_threadgroup.x * READS;
  for (uint start = thread_index_in_threadgroup * READS; start < width; start += stride) {
    float x[READS];
    float top = row.top;
    for (uint j = 0; j < READS; j++) {
      x[j] = start + j < width ? static_cast<float>(logits[base + start + j]) : -INFINITY;
      top = metal::max(top, x[j]);
    }
    if (top > row.top) {
      raise_top(row, top);
    }
    for (uint j = 0; j < READS; j++) {
      uint id = start + j;
      if (x[j] != -INFINITY) {
        float shifted = x[j] - row.top;
        float weight = metal::exp(shifted);
        row.total += weight;
        row.weighted += weight > 0.0f ? weight * shifted : 0.0f;
      }
      if (id >= width || id == barred) {
        continue;
      }
      if (x[j] > row.best) {
        row.second = row.best;
        row.best = x[j];
        row.token = id;
      } else {
        row.second = metal::max(row.second, x[j]);
      }
      // CHOOSE
    }
  }

  merge_lanes(row);
  if (lane == 0) {
    shared[group] = row;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (group == 0) {
    row = empty_row();
    if (lane < simdgroups_per_threadgroup) {
      row = shared[lane];
    }
    merge_lanes(row);
    if (lane == 0) {
      uint lowest = barred == 0 && width > 1 ? 1 : 0;
      if (row.token == NO_TOKEN) {
        row.token = lowest;
        row.best = static_cast<float>(logits[base + lowest]);
      }
      // DRAWN
      token[n] = int(row.token);
      p[n] = probability(row, row.best);
      p2[n] = probability(row, row.second);
      entropy[n] = row.total == 0.0f ? INFINITY : metal::log(row.total) - row.weighted / row.total;
      sampled[n] = int(row.drawn);
      p_sampled[n] = probability(row, row.drawn_logit);
    }
  }
"""

CHOOSE = """float score = SCORE;
      if (score > row.score) {
        row.score = score;
        row.drawn_logit = x[j];
        row.drawn = id;
      }"""
DRAWN = """if (row.drawn == NO_TOKEN) {
        row.drawn = lowest;
        row.drawn_logit = static_cast<float>(logits[base + lowest]);
      }"""
LIKELIEST = """row.drawn = row.token;
      row.drawn_logit = row.best;"""
GIVEN_SCORE = "static_cast<float>(scores[base + id])"
NOISE = """uint seed = seeds[n];
  uint call = calls[n];
  uint first_index = uint(positions[n]) * width;
  float heat = temperatures[n];"""
NOISY_SCORE = "heat > 0.0f ? x[j] / heat + gumbel(mixed(first_index + id, seed, call)) : x[j]"


def kernel(variant: str, inputs: tuple[str, ...] = (), prepare: str = "", score: str = "") -> dispatch.Kernel:
    """Return the kernel for one way to choose the sampled token; without a `score` it is the most likely token."""
    pieces = {
        "READS": str(READS),
        "// PREPARE": prepare,
        "// CHOOSE": CHOOSE.replace("SCORE", score) if score else "",
        "// DRAWN": DRAWN if score else LIKELIEST,
    }
    source = dispatch.fill(SOURCE, pieces)
    header = (noise.METAL if "gumbel" in score else "") + HEADER
    return dispatch.Kernel(
        f"token_stats_{variant}", ("logits", "excluded", *inputs), TokenStats._fields, source, header
    )


LIKELIEST_KERNEL = kernel("likeliest")
SCORES_KERNEL = kernel("scores", ("scores",), score=GIVEN_SCORE)
DRAW_KERNEL = kernel("draw", ("positions", "temperatures", "seeds", "calls"), NOISE, NOISY_SCORE)


def kernel_of(choice: Choice) -> dispatch.Kernel:
    """Return the kernel for one way to choose the sampled token."""
    if choice is None:
        return LIKELIEST_KERNEL
    return DRAW_KERNEL if isinstance(choice, Draw) else SCORES_KERNEL


def launch(logits: mx.array, excluded: int, choice: Choice) -> dispatch.Launch:
    """Return the launch: one threadgroup per row, with as many SIMD-groups as the row can use, up to a limit."""
    rows, width = logits.shape
    inputs: list[mx.array | int | float] = [logits, excluded]
    if isinstance(choice, Draw):
        columns = (choice.positions, choice.temperatures, choice.seeds, choice.calls)
        inputs += [on_device(column) for column in columns]
    elif choice is not None:
        inputs.append(choice)
    threads = min(THREADS, -(-width // (32 * READS)) * 32)
    numbers = mx.float32
    dtypes = [mx.int32, numbers, numbers, numbers, mx.int32, numbers]
    return dispatch.Launch(inputs, (rows * threads, 1, 1), (threads, 1, 1), [(rows,)] * len(dtypes), dtypes)


def reference(logits: mx.array, excluded: int, choice: Choice = None) -> TokenStats:
    """Return the result of the kernel, computed with MLX operations."""
    x = logits.astype(mx.float32)
    top = x.max(axis=-1, keepdims=True)
    base = mx.where(mx.isinf(top), 0.0, top)

    def below(logits: mx.array) -> mx.array:
        # exp(-200) is 0 like exp(-inf), but 0 * -200 is 0 and 0 * -inf is NaN.
        return mx.maximum(logits - base, -200.0)

    def weight(shifted: mx.array) -> mx.array:
        # This is exp, in half of its time on a CPU.
        return mx.power(2.0, shifted * math.log2(math.e))

    shifted = below(x)
    weights = weight(shifted)
    total = weights.sum(axis=-1)
    weighted = (weights * shifted).sum(axis=-1)
    entropy = mx.where(total == 0, mx.inf, mx.log(total) - weighted / total)
    scale = mx.where(total > 0, 1 / total, 0.0)
    ids, lowest = mx.arange(x.shape[-1]), int(excluded == 0 and x.shape[-1] > 1)

    def highest(scores: mx.array) -> mx.array:
        likeliest = scores.argmax(axis=-1, keepdims=True)
        best = mx.take_along_axis(scores, likeliest, axis=-1)
        return mx.where(best == -mx.inf, lowest, likeliest.astype(mx.int32))[:, 0]

    def allowed(scores: mx.array) -> mx.array:
        return mx.where(ids == excluded, -mx.inf, scores)

    def probability(ids: mx.array) -> mx.array:
        return mx.take_along_axis(weights, ids[:, None], axis=-1)[:, 0] * scale

    choices = allowed(x)
    token = highest(choices)
    others = mx.put_along_axis(choices, token[:, None], mx.array(-mx.inf), axis=-1)
    second = weight(below(others.max(axis=-1, keepdims=True)))[:, 0] * scale
    sampled = token
    if choice is not None:
        sampled = highest(allowed(choice.scores(logits) if isinstance(choice, Draw) else choice))
    return TokenStats(token, probability(token), second, entropy, sampled, probability(sampled))


def token_stats(logits: mx.array, excluded: int, choice: Choice = None) -> TokenStats:
    """Return the statistics of logits [N, V]. excluded: id that must not be chosen (the mask token), -1 for none."""
    return TokenStats(
        *guard.call(
            kernel_of(choice), lambda: launch(logits, excluded, choice), lambda: reference(logits, excluded, choice)
        )
    )
