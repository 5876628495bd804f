"""The kernel that computes statistics of rows of logits for acceptance rules, and the drawn tokens.

All results are computed in float32 whatever the dtype of the logits, because ties and near ties are common in half
precision. The Metal kernel reads a row once and keeps running sums, as in online softmax (Milakov and Gimelshein,
arXiv:1805.02867). One more sum gives the entropy. It needs no array of probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.kernels import dispatch, guard, noise
from d3mlx.kernels.dispatch import on_device

Floats = npt.NDArray[np.float32]


class TokenStats(NamedTuple):
    """Statistics of rows of logits, each [N]. Probabilities are those of the softmax at temperature 1.

    They are arrays of MLX if the kernel computes them, and else of NumPy.

    token: int32, the id with the highest logit; the lowest id wins a tie. p, p2: float32, the highest and the second
    highest probability. entropy: float32, in nats. sampled: int32, the drawn token. p_sampled: float32, its
    probability. The excluded id is never `token` or `sampled` but stays in the softmax. A row of only -inf gives the
    lowest allowed id, p 0 and entropy +inf. A row with NaN or +inf gives entropy NaN.
    """

    token: Any
    p: Any
    p2: Any
    entropy: Any
    sampled: Any
    p_sampled: Any


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

    def scores(self, logits: Any) -> Any:
        """Return noisy logits, float32 [N, V], whose argmax is the drawn token.

        logits: [N, V], an array of MLX or NumPy, like the result.
        """
        x: Any
        xp: Any
        xp, given, const = (
            (mx, on_device, noise.mx_const) if isinstance(logits, mx.array) else (np, np.asarray, np.uint32)
        )
        x = logits.astype(xp.float32)
        if self.greedy:
            return x
        index = noise.pair_indices(given(self.positions), x.shape[-1], xp)
        bits = noise.mixed(index, given(self.seeds)[:, None], given(self.calls)[:, None], const)
        heat = given(self.temperatures)[:, None]
        return xp.where(heat > 0, x / xp.where(heat > 0, heat, xp.ones_like(heat)) + noise.gumbel(bits, xp), x)


Choice = Draw | mx.array | Floats | None
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
        inputs.append(on_device(choice))
    threads = min(THREADS, -(-width // (32 * READS)) * 32)
    numbers = mx.float32
    dtypes = [mx.int32, numbers, numbers, numbers, mx.int32, numbers]
    return dispatch.Launch(inputs, (rows * threads, 1, 1), (threads, 1, 1), [(rows,)] * len(dtypes), dtypes)


AT_ONCE = 1 << 16
"""The reference handles about this many logits at a time, so that they stay in the processor's cache."""


def reference(logits: Floats, excluded: int, choice: Choice = None) -> TokenStats:
    """Return the result of the kernel, computed with NumPy. Given scores are NumPy's too."""
    scores: Any = choice.scores(logits) if isinstance(choice, Draw) else choice
    rows = max(1, AT_ONCE // logits.shape[1])
    parts = []
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        parts.append(statistics(logits[part], excluded, None if scores is None else scores[part]))
    return parts[0] if len(parts) == 1 else TokenStats(*map(np.concatenate, zip(*parts, strict=True)))


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def statistics(logits: Floats, excluded: int, scores: Floats | None) -> TokenStats:
    """Return the statistics of a few rows."""
    every, width = np.arange(len(logits)), logits.shape[1]
    lowest = int(excluded == 0 and width > 1)
    top = logits.max(axis=1)
    base = np.where(np.isinf(top), np.float32(0), top)
    # exp(-200) is 0 like exp(-inf), but 0 * -200 is 0 and 0 * -inf is NaN.
    shifted = np.maximum(logits - base[:, None], np.float32(-200))
    weights = np.exp(shifted)
    total = weights.sum(axis=1)
    entropy = np.where(total == 0, np.float32(np.inf), np.log(total) - (weights * shifted).sum(axis=1) / total)
    scale = np.where(total > 0, 1 / total, np.float32(0))

    def highest(choices: Floats) -> npt.NDArray[np.int32]:
        likeliest = choices.argmax(axis=1)
        return np.where(choices[every, likeliest] == -np.inf, lowest, likeliest).astype(np.int32)

    choices = allowed(logits, excluded)
    token = highest(choices)
    sampled = token if scores is None else highest(allowed(scores, excluded))
    choices[every, token] = -np.inf
    second = np.exp(np.maximum(choices.max(axis=1) - base, np.float32(-200)))
    return TokenStats(
        token, weights[every, token] * scale, second * scale, entropy, sampled, weights[every, sampled] * scale
    )


def allowed(scores: Floats, excluded: int) -> Floats:
    """Return a copy of scores [N, V] with -inf for the excluded id."""
    copy = scores.astype(np.float32)
    if 0 <= excluded < copy.shape[1]:
        copy[:, excluded] = -np.inf
    return copy


def runs_on_device(choice: Choice) -> bool:
    """Return whether `token_stats` runs its kernel for this choice. Otherwise it needs the logits on the host."""
    return guard.usable(kernel_of(choice))


def token_stats(logits: mx.array | Floats, excluded: int, choice: Choice = None) -> TokenStats:
    """Return the statistics of logits [N, V].

    logits: NumPy's, float32, if the kernel does not run. excluded: id that must not be chosen (the mask token), -1 for
    none.
    """
    if not isinstance(logits, mx.array):
        return reference(logits, excluded, choice)

    def on_the_host() -> TokenStats:
        given = dispatch.on_host(choice) if isinstance(choice, mx.array) else choice
        return reference(dispatch.on_host(logits), excluded, given)

    return TokenStats(*guard.call(kernel_of(choice), lambda: launch(logits, excluded, choice), on_the_host))
