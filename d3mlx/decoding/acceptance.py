"""Acceptance rules, which decide which eligible positions commit and with which token.

A rule is a frozen config with explicit state: `start(canvas)`, then `rule(candidates, state) -> (record, state)`.
`kernels.accept_blocks` applies the record to the statistics of the eligible rows on the device. A rule never sees the
statistics, so a test can check it with a table of made-up numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from d3mlx.canvas import Bools, Canvas, Ints
from d3mlx.decoding.cache_policy import LONG, Kind
from d3mlx.decoding.options import Range
from d3mlx.decoding.sampling import Noise
from d3mlx.decoding.schedule import ActiveBlocks, Block
from d3mlx.decoding.selective_cache import distances
from d3mlx.kernels.accept_blocks import Rule


@dataclass(frozen=True, eq=False)
class Commits:
    """The tokens that one step committed. positions: int32 [C], absolute. entropies: float32 [C], in nats."""

    positions: Ints
    entropies: npt.NDArray[np.float32]


NO_COMMITS = Commits(np.empty(0, np.int32), np.empty(0, np.float32))


@dataclass(frozen=True)
class Candidates:
    """The positions that may commit in a step.

    positions: int32 [N], absolute, ascending, at least one. active: the active blocks. kind: purpose of the forward.
    commits: what the previous step committed, nothing in the first step. noise: that of the request, for rules that
    draw.
    """

    positions: Ints
    active: ActiveBlocks
    kind: Kind
    commits: Commits
    noise: Noise


class Acceptance(Protocol):
    """An acceptance rule.

    filtered_statistics: the statistics are computed after temperature, top-p and top-k (Dream's own sampler).
    top_k_first: top-k applies before top-p (SDAR).
    ends_last: a row that drew an end token gets the lowest confidence, so it commits last.
    """

    @property
    def filtered_statistics(self) -> bool: ...

    @property
    def top_k_first(self) -> bool: ...

    @property
    def ends_last(self) -> bool: ...

    def start(self, canvas: Canvas) -> Any:
        """Return the state before the first step."""
        ...

    def rule(self, candidates: Candidates, state: Any) -> tuple[Rule, Any]:
        """Return the record that decides this step, and the next state."""
        ...


class EndsInOrder:
    """Base of rules that treat an end token like any other token, and apply top-p before top-k."""

    ends_last: ClassVar[bool] = False
    top_k_first: ClassVar[bool] = False


class Stateless(EndsInOrder):
    """Base of rules without state."""

    def start(self, canvas: Canvas) -> None:
        return None


Measure = Literal["confidence", "random", "margin", "entropy"]
"""The confidence of a position: the probability of its token, a random number, the distance from the highest to the
second highest probability, or minus the entropy."""


def most_confident(measure: Measure, count: int, candidates: Candidates) -> Rule:
    """Return the record that commits the `count` most confident positions."""
    noise = candidates.noise.uniform(candidates.positions) if measure == "random" else None
    return Rule(measure, level=math.inf if measure == "entropy" else -math.inf, most=count, noise=noise)


STEPS = Range("a number of steps", 1, LONG)
PROBABILITY = Range("a probability", 0, 1)
NATS = Range("an entropy in nats")
FACTOR = Range("a number", 0, LONG, open=True)
TIME = Range("a time", 0, 1, open=True)
TEMPERATURE = Range("a temperature")


def quotas(masks: int, steps: int) -> list[int]:
    """Return `masks` divided among `steps`; the first steps get the remainder (LLaDA, get_num_transfer_tokens)."""
    each, extra = divmod(masks, steps)
    return [each + (i < extra) for i in range(steps)]


@dataclass(frozen=True, eq=False)
class Pace:
    """Division of the steps among blocks, in proportion to the positions that they decode.

    per_token: steps per decoded token. given: bool [L], the flags of the canvas.
    """

    per_token: float
    given: Bools

    @classmethod
    def of(cls, canvas: Canvas, steps: int | None) -> Pace:
        """Return the pace of `steps` for the whole answer; None for one step per token."""
        return cls((steps or canvas.new_tokens) / canvas.new_tokens, canvas.given)

    def steps(self, block: Block) -> int:
        """Return the number of steps for a block."""
        decoded = int(np.count_nonzero(~self.given[block.start : block.end]))
        # The small number cancels the rounding error of steps / length, so that 24 / 64 * 16 is 6 and not 7.
        return max(1, math.ceil(self.per_token * decoded - 1e-9))


@dataclass(frozen=True)
class Quota:
    """LLaDA's own sampler: each step commits a fixed number of the most confident tokens (LLaDA paper, remasking).

    steps: for the whole answer, divided among the blocks by their length; None for one step per token.
    """

    measure: Measure
    steps: int | None = None
    filtered_statistics: bool = False
    ends_last: bool = False
    top_k_first: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.steps is not None:
            STEPS.check("steps", self.steps)

    def start(self, canvas: Canvas) -> tuple[Pace, int, tuple[int, ...]]:
        """Return the state: the pace, the start of the current block, its remaining quotas."""
        return (Pace.of(canvas, self.steps), -1, ())

    def rule(self, candidates: Candidates, state: tuple[Pace, int, tuple[int, ...]]) -> tuple[Rule, Any]:
        pace, opened, left = state
        block = candidates.active.first_full
        if block.start != opened:
            left = tuple(quotas(block.masks, pace.steps(block)))
        return most_confident(self.measure, left[0], candidates), (pace, block.start, left[1:])


def timesteps(steps: int, eps: float) -> npt.NDArray[np.float32]:
    """Return times from 1 down to `eps`, float32 [steps + 1], rounded as torch.linspace rounds them."""
    start, end = np.float32(1), np.float32(eps)
    # The width is rounded, the product is not: torch counts from both ends with a fused multiply-add.
    width = np.float64((end - start) / np.float32(steps))
    i = np.arange(steps + 1)
    return np.where(i < (steps + 1) // 2, start + width * i, end - width * (steps - i)).astype(np.float32)


@dataclass(frozen=True)
class DreamSchedule(EndsInOrder):
    """Dream's own sampler: the number of tokens follows the noise schedule, and may be 0 (Dream paper, sampling).

    steps: for the whole answer; None for one step per token. eps: final time, between 0 and 1. alg_temp: above 0, the
    positions are drawn in proportion to softmax(confidence / alg_temp) instead of taken in order. first_step: number of
    a block's first step, 1 if the opening pass of the block (`FirstPosition`) is step 0.
    """

    measure: Measure
    steps: int | None
    eps: float
    alg_temp: float = 0.0
    first_step: int = 0
    filtered_statistics: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            STEPS.check("steps", self.steps)
        TIME.check("eps", self.eps)
        TEMPERATURE.check("alg-temp", self.alg_temp)

    def start(self, canvas: Canvas) -> tuple[Pace, int, int]:
        """Return the state: the pace, the start of the current block, its step number."""
        return (Pace.of(canvas, self.steps), -1, 0)

    def rule(self, candidates: Candidates, state: tuple[Pace, int, int]) -> tuple[Rule, Any]:
        pace, opened, i = state
        block = candidates.active.first_full
        if block.start != opened:
            opened, i = block.start, self.first_step
        rule = most_confident(self.measure, self.count(i, pace.steps(block), len(candidates.positions)), candidates)
        rule = rule._replace(progress=False)
        if self.alg_temp > 0:
            # The largest sums of log-probability and Gumbel noise are draws without replacement.
            drawn = -np.log(-np.log(candidates.noise.uniform(candidates.positions)))
            rule = rule._replace(noise=drawn, heat=self.alg_temp)
        return rule, (pace, opened, i + 1)

    def count(self, i: int, steps: int, masks: int) -> int:
        """Return how many of `masks` positions step `i` of a block commits."""
        if i >= steps - 1:
            return masks
        t = timesteps(steps, self.eps)
        return int(np.float32(masks) * (np.float32(1) - t[i + 1] / t[i]))


@dataclass(frozen=True)
class DreamOrigin(EndsInOrder):
    """Dream's "origin": each masked position commits with a probability that follows the noise schedule.

    steps, eps: as for `DreamSchedule`.
    """

    steps: int | None
    eps: float
    filtered_statistics: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            STEPS.check("steps", self.steps)
        TIME.check("eps", self.eps)

    def start(self, canvas: Canvas) -> tuple[int, int]:
        """Return the state: number of steps, step number."""
        return (self.steps or canvas.new_tokens, 0)

    def rule(self, candidates: Candidates, state: tuple[int, int]) -> tuple[Rule, Any]:
        steps, i = state
        t = timesteps(steps, self.eps)
        chance = np.float32(1) if i >= steps - 1 else np.float32(1) - t[i + 1] / t[i]
        drawn = candidates.noise.uniform(np.arange(len(candidates.positions)))
        # A draw below the chance passes: its negative is above the level.
        return Rule("random", float(-chance), inclusive=False, progress=False, noise=-drawn), (steps, i + 1)


@dataclass(frozen=True)
class CarryQuota(EndsInOrder):
    """Fast-dLLM on Dream without a cache: a quota per step. Rejected tokens are added to the next step's quota.

    threshold: lowest probability that passes. steps: for the whole answer; None for one step per token.
    """

    threshold: float
    steps: int | None = None
    filtered_statistics: bool = True

    def __post_init__(self) -> None:
        PROBABILITY.check("threshold", self.threshold)
        if self.steps is not None:
            STEPS.check("steps", self.steps)

    def start(self, canvas: Canvas) -> tuple[int, int, int, int]:
        """Return the state: quota, number of steps, step number, most tokens that the last step could commit."""
        steps = min(self.steps or canvas.new_tokens, canvas.new_tokens)
        return (math.ceil(canvas.new_tokens / steps), steps, 0, 0)

    def rule(self, candidates: Candidates, state: tuple[int, int, int, int]) -> tuple[Rule, Any]:
        quota, steps, i, most = state
        rejected = most - len(candidates.commits.positions)
        if i >= steps:
            # After the planned last step there is no new quota: every rejected token adds one more step.
            quota, steps = 0, steps + rejected
        most = min(quota + rejected, len(candidates.positions))
        rule = Rule("confidence", self.threshold, most=most, best_always=True, progress=False)
        return rule, (quota, steps, i + 1, most)


@dataclass(frozen=True)
class Confidence(Stateless):
    """Fast-dLLM's parallel decoding: commit each position with probability >= `threshold`, and always the best one."""

    threshold: float
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        PROBABILITY.check("threshold", self.threshold)

    def rule(self, candidates: Candidates, state: None) -> tuple[Rule, None]:
        return Rule("confidence", self.threshold, best_always=True), None


@dataclass(frozen=True)
class Factor(Stateless):
    """Fast-dLLM's factor rule: commit the n most confident positions, n the largest with (n + 1)(1 - p_n) <= factor."""

    factor: float
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        FACTOR.check("factor", self.factor)

    def rule(self, candidates: Candidates, state: None) -> tuple[Rule, None]:
        return Rule("factor", self.factor), None


@dataclass(frozen=True)
class Entropy(Stateless):
    """d3LLM's rule: commit each position with entropy below `threshold` nats, and force progress in a full block.

    The fields are the differences between the published families. inclusive: an entropy equal to the threshold passes
    (LLaDA). best_always: the lowest entropy of all blocks always passes (LLaDA). force_likeliest: forced progress takes
    the most likely token (LLaDA) instead of the drawn one (Dream).
    """

    threshold: float
    inclusive: bool = True
    best_always: bool = True
    force_likeliest: bool = True
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        NATS.check("threshold", self.threshold)

    def rule(self, candidates: Candidates, state: None) -> tuple[Rule, None]:
        rule = Rule("entropy", self.threshold, inclusive=self.inclusive, best_always=self.best_always)
        return rule._replace(force_likeliest=self.force_likeliest), None


NEIGHBORS = 4
"""Distance in tokens within which `Relaxed` applies its own threshold, as published."""


@dataclass(frozen=True)
class Relaxed(EndsInOrder):
    """Neighborhood relaxation (arXiv 2510.07081): the entropy rule, with a higher threshold near confident tokens.

    A confident token committed in an earlier step with at most `inner.threshold` nats. Within NEIGHBORS positions of
    it, `threshold` nats suffice. The published levels are the probabilities 0.9 and 0.75.
    """

    inner: Entropy
    threshold: float

    def __post_init__(self) -> None:
        Range("an entropy in nats", self.inner.threshold).check("relaxed-threshold", self.threshold)

    @property
    def filtered_statistics(self) -> bool:
        return self.inner.filtered_statistics

    def start(self, canvas: Canvas) -> Bools:
        """Return the state: bool [L], True at the confident tokens."""
        return np.zeros(len(canvas), bool)

    def rule(self, candidates: Candidates, state: Bools) -> tuple[Rule, Bools]:
        rule, _ = self.inner.rule(candidates, None)
        confident, commits = state.copy(), candidates.commits
        confident[commits.positions[commits.entropies <= self.inner.threshold]] = True
        near = distances(confident)[candidates.positions] <= NEIGHBORS
        if self.threshold == self.inner.threshold:
            return rule, confident
        # A row passes its own threshold if its score passes the lower one after this is added.
        allowance = np.where(near, np.float32(self.threshold - self.inner.threshold), np.float32(0))
        return rule._replace(noise=allowance), confident


@dataclass(frozen=True)
class FirstPosition(EndsInOrder):
    """Fast-dLLM on Dream with a cache: a block's full pass commits only its first position, then `inner` decides."""

    inner: Acceptance

    @property
    def filtered_statistics(self) -> bool:
        return self.inner.filtered_statistics

    def start(self, canvas: Canvas) -> Any:
        return self.inner.start(canvas)

    def rule(self, candidates: Candidates, state: Any) -> tuple[Rule, Any]:
        return (Rule("opening"), state) if candidates.kind == "first" else self.inner.rule(candidates, state)
