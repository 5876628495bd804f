"""Drawing of tokens: temperature, top-p, top-k, and noise that depends only on the seed.

Noise is counter-based (kernels/noise.py): a seed gives the same text on every machine, whichever rows a decoder
computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.canvas import Ints
from d3mlx.errors import ConfigError
from d3mlx.kernels import noise
from d3mlx.kernels.dispatch import on_device
from d3mlx.kernels.noise import MASK32, mixed, mx_const
from d3mlx.kernels.token_stats import Draw

COLDEST, HOTTEST = 1e-4, 1e4
"""Lowest and highest temperature by which float32 logits can be divided."""

BELOW_ONE = 1 - 2.0**-24
"""The highest float32 number below 1."""


@dataclass(frozen=True)
class Sampling:
    """Settings for drawing tokens.

    temperature: 0 takes the most likely token; otherwise 1e-4 to 1e4.
    top_p: keep the smallest set of tokens whose probability reaches this share (0 < p <= 1; None for all).
    top_k: keep this many of the most likely tokens (at least 1; None for all).
    seed: determines every draw (0 to 2**32 - 1).
    end_penalty: subtracted from the logits of the end token to get longer answers (0 or more). This is Dream-Coder's
    eos_penalty; infinity is LLaDA's logits_eos_inf.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0
    end_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "end_penalty"):
            value = getattr(self, name)
            if not isinstance(value, Real) and not (name == "top_p" and value is None):
                raise ConfigError(f"{name.replace('_', '-')} must be a number, not {value!r}.")
        for name in ("top_k", "seed"):
            value = getattr(self, name)
            if (isinstance(value, bool) or not isinstance(value, Integral)) and not (name == "top_k" and value is None):
                raise ConfigError(f"{name.replace('_', '-')} must be a whole number, not {value!r}.")
        if self.temperature != 0 and not COLDEST <= self.temperature <= HOTTEST:
            raise ConfigError(f"The temperature must be 0, or from {COLDEST} to {HOTTEST}, not {self.temperature}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p must be above 0 and at most 1, not {self.top_p}.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top-k must be at least 1, not {self.top_k}.")
        if not 0 <= self.seed <= MASK32:
            raise ConfigError(f"The seed must be between 0 and {MASK32}, not {self.seed}.")
        if not self.end_penalty >= 0:
            raise ConfigError(f"end-penalty must be 0 or more, not {self.end_penalty}.")

    @property
    def truncates(self) -> bool:
        """Return whether top-p or top-k drops tokens."""
        return self.top_k is not None or (self.top_p is not None and self.top_p < 1)

    def filtered(self, logits: mx.array, excluded: int = -1, top_k_first: bool = False) -> mx.array:
        """Return logits [N, V], float32, divided by a temperature above 0; -inf for ids that top-p or top-k drops.

        excluded: an id that cannot be drawn (the mask token), so top-p and top-k must not count it. top_k_first: top-p
        counts only the ids that top-k keeps, instead of the other way around.
        """
        x = logits.astype(mx.float32)
        if self.truncates:
            x = mx.where(mx.arange(x.shape[-1]) == excluded, -mx.inf, x)
        if self.temperature > 0:
            x = x / self.temperature
        return self.in_top_p(self.in_top_k(x)) if top_k_first else self.in_top_k(self.in_top_p(x))

    def in_top_p(self, x: mx.array) -> mx.array:
        """Return logits [N, V] with -inf for ids that top-p drops."""
        if self.top_p is None or self.top_p >= 1:
            return x
        order = mx.argsort(-x, axis=-1)
        ranked = mx.softmax(mx.take_along_axis(x, order, axis=-1), axis=-1)
        before = mx.cumsum(ranked, axis=-1) - ranked
        dropped = mx.put_along_axis(mx.zeros(x.shape), order, (before > self.top_p).astype(mx.float32), axis=-1)
        return mx.where(dropped > 0, -mx.inf, x)

    def in_top_k(self, x: mx.array) -> mx.array:
        """Return logits [N, V] with -inf for ids that top-k drops."""
        if self.top_k is None or self.top_k >= x.shape[-1]:
            return x
        least = mx.topk(x, self.top_k, axis=-1).min(axis=-1, keepdims=True)
        return mx.where(x < least, -mx.inf, x)


class Noise:
    """The random numbers of one generation. Every draw has the next call number.

    in_kernels: whether the kernels compute the same bits. A subclass with other bits must set it to False.
    """

    in_kernels: ClassVar[bool] = True

    def __init__(self, seed: int):
        self.seed = seed
        self.call = 0

    def bits(self, index: Any, call: int, const: Callable[[int], Any]) -> Any:
        """Return 32 random bits for each uint32 index of draw number `call`. const: as for `noise.mixed`."""
        return mixed(index, const(self.seed), const(call), const)

    def uniform(self, index: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Return a float32 number in (0, 1) for each index, on the host."""
        bits = self.bits(index.astype(np.uint32), self.call, np.uint32)
        self.call += 1
        draws = (bits.astype(np.float64) + 0.5) / 2**32
        # The last 128 of the 2**32 draws would round to 1.
        return np.minimum(draws, BELOW_ONE).astype(np.float32)

    def gumbel(self, positions: Ints, width: int) -> mx.array:
        """Return standard Gumbel noise [N, width] for rows at `positions` int32 [N], on the device."""
        bits = self.bits(noise.pair_indices(on_device(positions), width, mx), self.call, mx_const)
        self.call += 1
        drawn: mx.array = noise.gumbel(bits, mx)
        return drawn

    def draw(self, positions: Ints, temperature: float) -> Draw:
        """Return the noise of `gumbel` and the temperature, for `token_stats` to apply."""
        self.call += 1
        return Draw.of(positions, temperature, self.seed, self.call - 1)


@dataclass(frozen=True)
class Drawing:
    """How the rows of one request get their tokens: its sampling and its noise.

    filtered: temperature and truncation apply before the statistics (Dream's own sampler), not only to the draw.
    top_k_first: as for `Sampling.filtered`.
    """

    sampling: Sampling
    noise: Noise
    filtered: bool
    top_k_first: bool = False

    @property
    def changes(self) -> bool:
        """Return whether the statistics are of other logits than the model's."""
        return self.filtered and (self.sampling.temperature > 0 or self.sampling.truncates)

    @property
    def greedy(self) -> bool:
        """Return whether every row takes the most likely token of the model's own logits."""
        return self.sampling.temperature == 0 and not self.changes

    def logits(self, logits: mx.array, mask_id: int) -> mx.array:
        """Return the logits [N, V] to compute statistics of; the same array if nothing changes them."""
        return self.sampling.filtered(logits, mask_id, self.top_k_first) if self.changes else logits

    def choice(self, logits: mx.array, positions: Ints, mask_id: int) -> Draw | mx.array:
        """Return how tokens are chosen: a draw inside the kernel (greedy at temperature 0), or scores [N, V].

        logits: [N, V], the result of the method `logits`. positions: int32 [N], absolute.
        """
        sampling = self.sampling
        if sampling.temperature == 0:
            return Draw.of(positions, 0.0, 0, 0)
        if self.noise.in_kernels and (self.filtered or not sampling.truncates):
            return self.noise.draw(positions, 1.0 if self.filtered else sampling.temperature)
        scores = logits if self.filtered else sampling.filtered(logits, mask_id, self.top_k_first)
        return scores + self.noise.gumbel(positions, scores.shape[-1])
