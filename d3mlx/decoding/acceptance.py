"""Which eligible positions commit, and to which token.

Thresholds are records that `kernels.accept_blocks` applies on the device. Quotas are decided on the host, with
explicit state: `start(canvas)`, then `step(facts, state) -> (decision, state)`. They see statistics of the eligible
rows only, so they can be tested with a table of made-up numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from d3mlx.canvas import Bools, Canvas, Ints
from d3mlx.decoding.rows import LONG, Kind
from d3mlx.decoding.sampling import Noise
from d3mlx.decoding.schedule import View
from d3mlx.errors import ConfigError
from d3mlx.kernels.accept_blocks import Rule

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Facts:
    """What a rule may look at: one entry per eligible position, ascending, at least one.

    The arrays are those of `kernels.token_stats.TokenStats`.
    """

    positions: Ints
    token: Ints
    p: Floats
    p2: Floats
    entropy: Floats
    sampled: Ints
    p_sampled: Floats
    view: View
    noise: Noise

    def within(self, start: int, end: int) -> Bools:
        """True for the eligible positions in [start, end)."""
        return (self.positions >= start) & (self.positions < end)


@dataclass(frozen=True)
class Decision:
    """Indices into `Facts.positions`, and the tokens they receive."""

    chosen: Ints
    tokens: Ints


class Acceptance(Protocol):
    """`filtered_statistics`: the statistics are taken after temperature, top-p and top-k (Dream's own sampler)."""

    @property
    def filtered_statistics(self) -> bool: ...

    def start(self, canvas: Canvas) -> Any:
        """The state before the first step."""
        ...

    def rule(self, kind: Kind) -> Rule | HostRule:
        """What decides a step of this kind: a record for `kernels.accept_blocks`, or a rule of the host."""
        ...


class HostRule(Protocol):
    def step(self, facts: Facts, state: Any) -> tuple[Decision, Any]: ...


class OnHost:
    """Rules that decide every step themselves."""

    def rule(self, kind: Kind) -> Any:
        return self


class OnDevice:
    """Rules that are a record, and have no state."""

    def start(self, canvas: Canvas) -> None:
        return None


Measure = Literal["confidence", "random", "margin", "entropy"]


def certainty(measure: Measure, facts: Facts) -> Floats:
    """How sure the model is of each eligible position; higher is surer."""
    if measure == "random":
        return facts.noise.uniform(facts.positions)
    if measure == "margin":
        return facts.p - facts.p2
    if measure == "entropy":
        return -facts.entropy
    return facts.p_sampled


def best(scores: Floats, count: int) -> Ints:
    """Indices of the `count` highest scores; the smaller index wins a tie."""
    return np.argsort(-scores, kind="stable")[:count].astype(np.int32)


def decide(chosen: Ints, facts: Facts) -> Decision:
    return Decision(chosen, facts.sampled[chosen])


def check_steps(steps: int) -> None:
    if not 1 <= steps <= LONG:
        raise ConfigError(f"The number of steps must be from 1 to {LONG:,}, not {steps}.")


def check_probability(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ConfigError(f"The confidence threshold is a probability between 0 and 1, not {threshold}.")


def quotas(masks: int, steps: int) -> list[int]:
    """`masks` spread over `steps`, the remainder going to the first ones (LLaDA, get_num_transfer_tokens)."""
    each, extra = divmod(masks, steps)
    return [each + (i < extra) for i in range(steps)]


@dataclass(frozen=True)
class Quota(OnHost):
    """LLaDA's own sampler: a fixed number of tokens each step, the most certain ones (LLaDA paper, remasking).

    `steps` is for the whole answer and is shared out to the blocks by their length; None is one step per token.
    """

    measure: Measure = "confidence"
    steps: int | None = None
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_steps(self.steps)

    def start(self, canvas: Canvas) -> tuple[float, int, tuple[int, ...]]:
        """State: steps per token, the start of the block at hand, its remaining quotas."""
        length = len(canvas) - canvas.prompt_length
        return ((self.steps or length) / length, -1, ())

    def step(self, facts: Facts, state: tuple[float, int, tuple[int, ...]]) -> tuple[Decision, Any]:
        pace, opened, left = state
        block = facts.view.focus
        if block.start != opened:
            # The small number undoes the rounding of steps / length, so that 24 / 64 * 16 is 6 and not 7.
            steps = max(1, math.ceil(pace * (block.end - block.start) - 1e-9))
            left = tuple(quotas(block.masks, steps))
        here = np.flatnonzero(facts.within(block.start, block.end))
        scores = certainty(self.measure, facts)
        chosen = here[best(scores[here], left[0])]
        return decide(chosen.astype(np.int32), facts), (pace, block.start, left[1:])


def timesteps(steps: int, eps: float) -> npt.NDArray[np.float32]:
    """`steps` + 1 times from 1 down to `eps`, rounded as torch.linspace rounds them in float32."""
    start, end = np.float32(1), np.float32(eps)
    # The width is rounded, the product is not: torch counts from either end with a fused multiply-add.
    width = np.float64((end - start) / np.float32(steps))
    i = np.arange(steps + 1)
    return np.where(i < (steps + 1) // 2, start + width * i, end - width * (steps - i)).astype(np.float32)


def check_eps(eps: float) -> None:
    if not 0 < eps < 1:
        raise ConfigError(f"eps is the last time of the schedule, above 0 and below 1, not {eps}.")


@dataclass(frozen=True)
class TimeQuota(OnHost):
    """Dream's own sampler: the number of tokens follows the noise schedule, and may be 0 (Dream paper, sampling).

    `steps` is for the whole answer (None: one per token) and `eps` the last time. With `alg_temp` above 0 the positions
    are drawn in proportion to softmax(certainty / alg_temp) instead of taken in order. `first_step` is the number of a
    block's first step: 1 where the block's opening pass (`OpensBlock`) was step 0.
    """

    measure: Measure = "entropy"
    steps: int | None = None
    eps: float = 1e-3
    alg_temp: float = 0.0
    first_step: int = 0
    filtered_statistics: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_steps(self.steps)
        check_eps(self.eps)
        if self.alg_temp < 0:
            raise ConfigError(f"alg-temp must be 0 or above, not {self.alg_temp}.")

    def start(self, canvas: Canvas) -> tuple[float, int, int]:
        """State: steps per token, the start of the block at hand, its step number."""
        length = len(canvas) - canvas.prompt_length
        return ((self.steps or length) / length, -1, 0)

    def step(self, facts: Facts, state: tuple[float, int, int]) -> tuple[Decision, Any]:
        pace, opened, i = state
        block = facts.view.focus
        if block.start != opened:
            opened, i = block.start, self.first_step
        steps = max(1, math.ceil(pace * (block.end - block.start) - 1e-9))
        chosen = self.pick(facts, self.count(i, steps, len(facts.positions)))
        return decide(chosen, facts), (pace, opened, i + 1)

    def count(self, i: int, steps: int, masks: int) -> int:
        if i >= steps - 1:
            return masks
        t = timesteps(steps, self.eps)
        return int(np.float32(masks) * (np.float32(1) - t[i + 1] / t[i]))

    def pick(self, facts: Facts, count: int) -> Ints:
        scores = certainty(self.measure, facts)
        if self.alg_temp > 0:
            # The largest of log-probability plus Gumbel noise are draws without replacement.
            scores = scores / self.alg_temp - np.log(-np.log(facts.noise.uniform(facts.positions)))
        return best(scores, count)


@dataclass(frozen=True)
class Origin(OnHost):
    """Dream's "origin": every masked position commits by the toss of a coin that the noise schedule weights."""

    steps: int | None = None
    eps: float = 1e-3
    filtered_statistics: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_steps(self.steps)
        check_eps(self.eps)

    def start(self, canvas: Canvas) -> tuple[int, int]:
        """State: number of steps, step number."""
        return (self.steps or len(canvas) - canvas.prompt_length, 0)

    def step(self, facts: Facts, state: tuple[int, int]) -> tuple[Decision, Any]:
        steps, i = state
        t = timesteps(steps, self.eps)
        chance = np.float32(1) if i >= steps - 1 else np.float32(1) - t[i + 1] / t[i]
        drawn = facts.noise.uniform(np.arange(len(facts.positions)))
        return decide(np.flatnonzero(drawn < chance).astype(np.int32), facts), (steps, i + 1)


@dataclass(frozen=True)
class Carry(OnHost):
    """Fast-dLLM on Dream without a cache: a quota per step; what is not confident enough is owed to the next step."""

    threshold: float = 0.9
    steps: int | None = None
    filtered_statistics: bool = True

    def __post_init__(self) -> None:
        check_probability(self.threshold)
        if self.steps is not None:
            check_steps(self.steps)

    def start(self, canvas: Canvas) -> tuple[int, int, int, int]:
        """State: quota, tokens owed, steps, step number."""
        length = len(canvas) - canvas.prompt_length
        steps = min(self.steps or length, length)
        return (math.ceil(length / steps), 0, steps, 0)

    def step(self, facts: Facts, state: tuple[int, int, int, int]) -> tuple[Decision, Any]:
        quota, owed, steps, i = state
        ranked = best(facts.p_sampled, quota + owed)
        passed = facts.p_sampled[ranked] >= self.threshold
        passed[:1] = True
        rejected = int((~passed).sum())
        # From the planned last step on there is no fresh quota: every rejected token buys one more step.
        after = (quota, rejected, steps, i + 1) if i < steps - 1 else (0, rejected, steps + rejected, i + 1)
        return decide(ranked[passed], facts), after


@dataclass(frozen=True)
class Confidence(OnDevice):
    """Fast-dLLM's parallel decoding: every position with probability >= `threshold`, and always the best one."""

    threshold: float = 0.9
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        check_probability(self.threshold)

    def rule(self, kind: Kind) -> Rule:
        return Rule("confidence", self.threshold, best_always=True)


@dataclass(frozen=True)
class Factor(OnDevice):
    """Fast-dLLM's factor rule: the n surest positions together, n the largest with (n + 1)(1 - p_n) <= factor."""

    factor: float = 1.0
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.factor <= LONG:
            raise ConfigError(f"The factor must be above 0 and at most {LONG:,}, not {self.factor}.")

    def rule(self, kind: Kind) -> Rule:
        return Rule("factor", self.factor)


@dataclass(frozen=True)
class Entropy(OnDevice):
    """d3LLM's rule: every position with entropy below `threshold` nats, and progress in the first full block.

    What differs between the published families is data: LLaDA counts a tie as a pass (`inclusive`), always takes the
    lowest entropy of all wherever it is (`best_always`), and forces progress with the most likely token where Dream
    takes the drawn one (`force_likeliest`).
    """

    threshold: float = 0.5
    inclusive: bool = True
    best_always: bool = True
    force_likeliest: bool = True
    filtered_statistics: bool = False

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ConfigError(f"The entropy threshold is in nats, 0 or above, not {self.threshold}.")

    def rule(self, kind: Kind) -> Rule:
        return Rule("entropy", self.threshold, self.inclusive, self.best_always, self.force_likeliest)


@dataclass(frozen=True)
class OpensBlock:
    """Fast-dLLM on Dream with a cache: a block's full pass commits its first position only, then `inner` decides."""

    inner: Acceptance

    @property
    def filtered_statistics(self) -> bool:
        return self.inner.filtered_statistics

    def start(self, canvas: Canvas) -> Any:
        return self.inner.start(canvas)

    def rule(self, kind: Kind) -> Rule | HostRule:
        return Rule("opening") if kind == "first" else self.inner.rule(kind)
