"""Acceptance rules and statistics on fixed numbers give the results of the reference functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import (
    NO_COMMITS,
    Acceptance,
    Candidates,
    CarryQuota,
    Commits,
    Confidence,
    DreamOrigin,
    DreamSchedule,
    Entropy,
    Factor,
    FirstPosition,
    Measure,
    Quota,
    Relaxed,
    most_confident,
    quotas,
    timesteps,
)
from d3mlx.decoding.cache_policy import DualCache, Kind, NoCache
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.presets import preset
from d3mlx.decoding.sampling import Noise, Sampling
from d3mlx.decoding.schedule import ActiveBlocks, Block, SequentialBlocks
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.errors import ConfigError
from d3mlx.kernels.accept_blocks import Accepted, Rule, accept_blocks, scores_of
from d3mlx.kernels.dispatch import on_host
from d3mlx.kernels.noise import gumbel, mx_const
from d3mlx.kernels.token_stats import TokenStats, token_stats

UNIT = json.loads((Path(__file__).parents[1] / "golden" / "unit.json").read_text())
LOGITS = np.array(UNIT["gumbel"]["logits"], np.float32)


@pytest.mark.parametrize("case", UNIT["get_num_transfer_tokens"])
def test_quotas(case: Any) -> None:
    assert quotas(case["masks"], case["steps"]) == case["quotas"]


@pytest.mark.parametrize("case", UNIT["timesteps"])
def test_timesteps(case: Any) -> None:
    assert timesteps(case["steps"], case["eps"]).tolist() == np.array(case["values"], np.float32).tolist()


@pytest.mark.parametrize("case", [case for case in UNIT["gumbel"]["cases"] if case["temperature"]])
def test_gumbel_max(case: Any) -> None:
    uniform = np.array(UNIT["gumbel"]["uniform"])
    scores = LOGITS / case["temperature"] - np.log(-np.log(uniform))
    stats = token_stats(mx.array(LOGITS), -1, mx.array(scores.astype(np.float32)))
    assert np.array(stats.sampled).tolist() == case["argmax"]


@dataclass
class Rows:
    """Statistics of made-up rows."""

    positions: Any
    stats: TokenStats
    active: ActiveBlocks

    def candidates(self, kind: Kind = "step", commits: Commits = NO_COMMITS, noise: Noise | None = None) -> Candidates:
        return Candidates(self.positions, self.active, kind, commits, noise or Noise(0))

    def apply(self, record: Rule) -> dict[int, int]:
        """Return the rows that a record accepts, and their tokens."""
        focus = self.active.first_full
        packed = accept_blocks(self.stats, self.positions, (focus.start, focus.end), record)
        accepted = Accepted.unpack(np.array(packed))
        assert accepted.guesses.tolist() == np.array(self.stats.token).tolist()
        assert accepted.entropies.tolist() == np.array(self.stats.entropy).tolist()
        return {i: token for i, token in enumerate(accepted.tokens.tolist()) if token >= 0}

    def accept(self, rule: Acceptance, kind: Kind = "step") -> dict[int, int]:
        """Return the rows that a rule without state accepts, and their tokens."""
        record, state = rule.rule(self.candidates(kind), None)
        assert state is None
        return self.apply(record)


def rows_of(logits: Any, positions: Any = None, active: ActiveBlocks | None = None, **changes: Any) -> Rows:
    count = len(logits)
    stats = TokenStats(*map(on_host, token_stats(mx.array(logits), excluded=-1)))
    kinds = {name: np.int32 if "token" in name or name == "sampled" else np.float32 for name in changes}
    stats = stats._replace(**{name: np.array(value, kinds[name]) for name, value in changes.items()})
    rows = np.arange(count, dtype=np.int32) if positions is None else np.array(positions, np.int32)
    return Rows(rows, stats, active or ActiveBlocks((Block(0, 1000, count, full=True),)))


@pytest.mark.parametrize("case", UNIT["entropy_select"]["cases"])
def test_entropy_rule(case: Any) -> None:
    masked = np.flatnonzero(UNIT["entropy_select"]["mask"])
    rows = rows_of(LOGITS[masked], masked)
    assert np.array(rows.stats.entropy) == pytest.approx(np.array(UNIT["entropy_select"]["entropy"])[masked], abs=2e-6)
    accepted = rows.accept(Entropy(case["threshold"]))
    assert {int(masked[i]): token for i, token in accepted.items()} == {p: case["x0"][p] for p in case["accepted"]}


@pytest.mark.parametrize("case", UNIT["confidence_select"])
def test_confidence_rule(case: Any) -> None:
    masked = np.flatnonzero(UNIT["entropy_select"]["mask"])
    if "k" in case:
        rows = rows_of(LOGITS[masked], masked)
        chosen = list(rows.apply(most_confident("confidence", case["k"], rows.candidates())))
    else:
        chosen = list(rows_of(LOGITS[masked], masked).accept(Confidence(case["threshold"])))
    assert sorted(masked[chosen].tolist()) == case["accepted"]


@pytest.mark.parametrize("case", UNIT["sample_tokens"])
def test_filtered_statistics(case: Any) -> None:
    options = dict(case["kwargs"])
    measure: Measure = "margin" if options.pop("margin_confidence", False) else "confidence"
    if options.pop("neg_entropy", False):
        measure = "entropy"
    rows = rows_of(np.array(Sampling(**options).filtered(mx.array(LOGITS))))
    scores = np.array(scores_of(rows.stats, most_confident(measure, 1, rows.candidates())))
    assert scores == pytest.approx(np.array(case["confidence"]), abs=2e-6)
    assert np.array(rows.stats.sampled).tolist() == case["tokens"]


@pytest.mark.parametrize("case", UNIT["top_p_kept"])
def test_top_p(case: Any) -> None:
    finite = np.isfinite(np.array(Sampling(top_p=case["top_p"]).filtered(mx.array(LOGITS))))
    assert [np.flatnonzero(row).tolist() for row in finite] == case["kept"]


def test_top_k_and_top_p_do_not_count_a_likely_mask_token() -> None:
    logits = mx.array([[-9.0, 0.0, 4.0, 5.0]])
    for sampling in (Sampling(temperature=0.5, top_k=1), Sampling(top_p=0.3)):
        assert token_stats(sampling.filtered(logits, 3), 3).token.item() == 2


def test_statistics_of_hard_rows() -> None:
    inf = -np.inf
    rows = np.array([[inf] * 4, [1, 1, 0, 1], [inf, 0, inf, 0], [0, 0, 90, 0]], np.float32)
    stats = token_stats(mx.array(rows), excluded=-1)
    assert np.array(stats.token).tolist() == [0, 0, 1, 2]
    assert np.array(stats.p) == pytest.approx([0, np.e / (3 * np.e + 1), 0.5, 1], abs=1e-6)
    assert np.array(stats.p2) == pytest.approx([0, np.e / (3 * np.e + 1), 0.5, 0], abs=1e-6)
    entropy = np.array(stats.entropy)
    assert entropy[0] == np.inf
    assert entropy[2:] == pytest.approx([np.log(2), 0], abs=1e-6)


def test_family_differences_of_the_entropy_rule() -> None:
    """An entropy equal to the threshold passes in LLaDA and not in Dream. LLaDA also takes the best row of all."""
    active = ActiveBlocks((Block(0, 2, 2, full=True), Block(2, 4, 2, full=False)))
    rows = rows_of(np.zeros((4, 4)), active=active, entropy=[0.9, 0.8, 0.3, 0.5], token=[4, 5, 6, 7])
    assert list(rows.accept(Entropy(0.5))) == [1, 2, 3]
    dream = Entropy(0.5, inclusive=False, best_always=False, force_likeliest=False)
    assert list(rows.accept(dream)) == [1, 2]
    # All entropies are above the threshold: LLaDA commits the best row of all and the best of the focus.
    assert list(rows.accept(Entropy(0.1))) == [1, 2]
    assert list(rows.accept(Entropy(0.1, best_always=False))) == [1]


def test_forced_progress_takes_the_most_likely_token_in_llada_and_the_drawn_token_in_dream() -> None:
    rows = rows_of(np.zeros((2, 4)), entropy=[0.9, 0.8], token=[4, 5], sampled=[6, 7])
    for likeliest, token in ((True, 5), (False, 7)):
        assert rows.accept(Entropy(0.1, best_always=False, force_likeliest=likeliest)) == {1: token}


def test_factor_rule() -> None:
    """Accept n rows while (n + 1)(1 - p_n) < factor. A scan that fails only at the last row, or never, takes all."""

    def accepted(*p: float) -> list[int]:
        return list(rows_of(np.zeros((len(p), 3)), p_sampled=p).accept(Factor(1.0)))

    assert accepted(0.2, 0.9, 0.1, 0.1) == [1]
    assert accepted(0.99, 0.9, 0.1, 0.1) == [0, 1]
    assert accepted(0.99, 0.9, 0.1) == [0, 1, 2]
    assert accepted(0.4) == [0]
    assert accepted(0.1, 0.5, 0.5, 0.1) == [1]


def test_opening_commits_the_first_position_of_the_block_and_then_the_inner_rule_decides() -> None:
    active = ActiveBlocks((Block(0, 2, 0, full=True), Block(2, 5, 3, full=True)))
    rows = rows_of(np.zeros((3, 4)), [2, 3, 4], active, p_sampled=[0.2, 0.95, 0.99], sampled=[5, 6, 7])
    rule = FirstPosition(Confidence(0.9))
    assert rows.accept(rule, "first") == {0: 5}
    assert rows.accept(rule) == {1: 6, 2: 7}


class Made:
    """A run of a rule in one block. Each step draws new statistics with ties, one entry per position of the canvas."""

    def __init__(self, seed: int, count: int, start: int = 3):
        self.rng = np.random.default_rng(seed)
        self.canvas = Canvas.for_prompt([1] * start, count, 999)
        self.noise, self.again = Noise(seed), Noise(seed)
        self.commits = NO_COMMITS

    def draw(self) -> None:
        columns = self.rng.integers(0, 5, (4, len(self.canvas))) / np.float32(4)
        self.p, self.p2, self.entropy, self.p_sampled = columns.astype(np.float32)
        self.token, self.sampled = self.rng.integers(0, 900, (2, len(self.canvas))).astype(np.int32)

    @property
    def left(self) -> Any:
        """Return the masked positions, int32 [N]."""
        return self.canvas.masked_before(len(self.canvas))

    def certainty(self, measure: str) -> Any:
        """Return the published confidence of each masked position, float32 [N]."""
        if measure == "random":
            return self.again.uniform(self.left)
        columns = {"margin": self.p - self.p2, "entropy": -self.entropy, "confidence": self.p_sampled}
        return columns[measure][self.left]

    def step(self, rule: Acceptance, state: Any) -> tuple[list[int], Any]:
        """Commit what the rule accepts; return those positions and the next state."""
        left, start = self.left, self.canvas.prompt_length
        names = (self.token, self.p, self.p2, self.entropy, self.sampled, self.p_sampled)
        stats = TokenStats(*(column[left] for column in names))
        rows = Rows(left, stats, ActiveBlocks((Block(start, len(self.canvas), len(left), full=True),)))
        record, state = rule.rule(rows.candidates(commits=self.commits, noise=self.noise), state)
        accepted = rows.apply(record)
        chosen = left[list(accepted)]
        assert list(accepted.values()) == self.sampled[chosen].tolist()
        self.canvas.commit(chosen, self.sampled[chosen])
        self.commits = Commits(chosen, self.entropy[chosen])
        return chosen.tolist(), state

    def check(self, rule: Acceptance, expected: Any) -> int:
        """Run the rule to the end and compare each step with `expected(index)`. Return the number of steps."""
        state, index = rule.start(self.canvas), 0
        while len(self.left):
            self.draw()
            wanted = sorted(expected(index))
            accepted, state = self.step(rule, state)
            assert accepted == wanted, index
            index += 1
        return index


def most_certain(scores: Any, count: int) -> Any:
    """Return the indices of the `count` highest scores. If scores are equal, the lower index comes first."""
    return np.argsort(-scores, kind="stable")[:count]


@pytest.mark.parametrize("measure", ["confidence", "random"])
@pytest.mark.parametrize("case", [case for case in UNIT["get_num_transfer_tokens"] if case["masks"]])
def test_a_quota_takes_its_number_of_the_most_confident_positions(case: Any, measure: Measure) -> None:
    made = Made(case["steps"], case["masks"])

    def expected(index: int) -> Any:
        return made.left[most_certain(made.certainty(measure), case["quotas"][index])]

    steps = made.check(Quota(measure, case["steps"]), expected)
    assert steps == np.count_nonzero(case["quotas"])


@pytest.mark.parametrize("alg_temp", [0.0, 0.5])
@pytest.mark.parametrize("measure", ["entropy", "confidence", "margin"])
@pytest.mark.parametrize("case", UNIT["timesteps"])
def test_a_time_quota_follows_the_noise_schedule(case: Any, measure: Measure, alg_temp: float) -> None:
    """Step i commits floor(masks * (1 - t[i + 1] / t[i])) positions, and the last step commits the rest."""
    made, t = Made(case["steps"], 40), torch_times(case)

    def expected(index: int) -> Any:
        last = index == case["steps"] - 1
        count = len(made.left) if last else int(np.float32(len(made.left)) * (np.float32(1) - t[index + 1] / t[index]))
        scores = made.certainty(measure)
        if alg_temp:
            scores = scores / np.float32(alg_temp) - np.log(-np.log(made.again.uniform(made.left)))
        return made.left[most_certain(scores, count)]

    rule = DreamSchedule(measure, case["steps"], case["eps"], alg_temp)
    assert made.check(rule, expected) <= case["steps"]


@pytest.mark.parametrize("case", UNIT["timesteps"])
def test_origin_decides_each_position_by_chance(case: Any) -> None:
    made, t = Made(case["steps"], 40), torch_times(case)

    def expected(index: int) -> Any:
        last = index == case["steps"] - 1
        chance = np.float32(1) if last else np.float32(1) - t[index + 1] / t[index]
        return made.left[made.again.uniform(np.arange(len(made.left))) < chance]

    assert made.check(DreamOrigin(case["steps"], case["eps"]), expected) <= case["steps"]


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_row_near_a_confident_token_has_the_relaxed_threshold(seed: int, inclusive: bool) -> None:
    """Tokens that only forced progress or the relaxed threshold committed are not confident."""
    made, confident = Made(seed, 60), set[int]()

    def expected(index: int) -> Any:
        limits = {p: 0.75 if any(abs(p - q) <= 4 for q in confident) else 0.25 for p in made.left.tolist()}
        entropy = {p: float(made.entropy[p]) for p in limits}
        passed = [p for p in limits if entropy[p] < limits[p] or (inclusive and entropy[p] == limits[p])]
        passed = passed or [min(limits, key=lambda p: (entropy[p] - limits[p], p))]
        confident.update(p for p in passed if entropy[p] <= 0.25)
        return passed

    rule = Relaxed(Entropy(0.25, inclusive=inclusive, best_always=False, force_likeliest=False), 0.75)
    steps = made.check(rule, expected)
    assert confident and steps > 1


@pytest.mark.parametrize("threshold", [0.25, np.inf])
def test_an_equal_relaxed_threshold_changes_nothing(threshold: float) -> None:
    made, plain, inner = Made(0, 60), Made(0, 60), Entropy(threshold)

    def expected(index: int) -> Any:
        plain.draw()
        return plain.step(inner, None)[0]

    made.check(Relaxed(inner, threshold), expected)


@pytest.mark.filterwarnings("error")
def test_noise_of_the_smallest_and_the_largest_bits_is_finite() -> None:
    noise = gumbel(np.array([0, 2**32 - 1], np.uint32), np)
    assert noise[0] < -3 and 22 < noise[1] < np.inf


def torch_times(case: Any) -> Any:
    return np.array(case["values"], np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("threshold", "steps"), [(0.0, 4), (0.5, 7), (0.75, 5), (1.0, 40), (1.0, 3)])
def test_rejected_tokens_are_added_to_the_next_quota(seed: int, threshold: float, steps: int) -> None:
    """As published, a quota takes the most confident tokens and rejects those below the threshold, except the first."""
    made = Made(seed, 40)
    quota, carried, planned = -(-40 // steps), 0, steps

    def expected(index: int) -> Any:
        nonlocal quota, carried, planned
        ranked = most_certain(made.p_sampled[made.left], quota + carried)
        passed = made.p_sampled[made.left][ranked] >= threshold
        passed[:1] = True
        carried = int((~passed).sum())
        if index >= planned - 1:
            quota, planned = 0, planned + carried
        return made.left[ranked[passed]]

    made.check(CarryQuota(threshold, steps), expected)


def test_noise_is_the_same_on_host_and_device_and_uniform() -> None:
    noise = Noise(7)
    index = np.arange(20000, dtype=np.uint32)
    host = noise.bits(index, 3, np.uint32)
    device = np.array(noise.bits(mx.array(index), 3, mx_const))
    assert (host == device).all()
    assert not (host == noise.bits(index, 4, np.uint32)).any()
    share = np.bincount(host >> np.uint32(28), minlength=16) / len(host)
    assert share == pytest.approx(np.full(16, 1 / 16), abs=0.008)


@pytest.mark.parametrize("bits", [0, 2**31, 2**32 - 129, 2**32 - 128, 2**32 - 1])
def test_uniform_draws_are_between_0_and_1(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last 128 of the 2**32 values round to 1 in float32, whose double logarithm is infinite."""
    monkeypatch.setattr(Noise, "bits", lambda self, index, call, const: np.full_like(index, bits))
    (drawn,) = Noise(0).uniform(np.array([3], np.uint32))
    assert 0 < drawn < 1
    assert np.isfinite(np.log(-np.log(drawn)))


def test_gumbel_draws_follow_the_softmax() -> None:
    logits = mx.array([[1.0, 0.0, -1.0]])
    positions = np.arange(20000, dtype=np.int32)
    drawn = np.array(token_stats(mx.repeat(logits, 20000, axis=0), -1, logits + Noise(1).gumbel(positions, 3)).sampled)
    expected = np.exp([1, 0, -1]) / np.exp([1, 0, -1]).sum()
    assert np.bincount(drawn) / 20000 == pytest.approx(expected, abs=0.012)


BAD: list[Any] = [
    lambda: D3LLM(block_add=1.1).build("llada"),
    lambda: D3LLM(activation=-0.1).build("llada"),
    lambda: D3LLM(threshold=-1).build("dream"),
    lambda: D3LLM(threshold=float("nan")).build("dream"),
    lambda: D3LLM(block_size=0).build("dream"),
    lambda: D3LLM(cache_delay=-1).build("llada"),
    lambda: D3LLM(refresh_interval=0).build("llada"),
    lambda: D3LLM(cache="dual").build("llada"),
    lambda: D3LLM(cache="none", cache_delay=1).build("llada"),
    lambda: FastDLLM(threshold=1.5).build("llada"),
    lambda: FastDLLM(threshold=0.5, factor=1.0).build("llada"),
    lambda: FastDLLM(factor=1.0).build("dream"),
    lambda: FastDLLM(factor=0.0).build("llada"),
    lambda: FastDLLM(cache="delayed").build("llada"),
    lambda: FastDLLM(steps=4).build("llada"),
    lambda: Vanilla(alg="entropy").build("llada"),
    lambda: Vanilla(alg="low_confidence").build("dream"),
    lambda: Vanilla(steps=0).build("llada"),
    lambda: Vanilla(eps=0.0).build("dream"),
    lambda: Vanilla(alg_temp=0.1).build("llada"),
    lambda: Vanilla(cfg_scale=1.0).build("dream"),
    lambda: Vanilla(cfg_scale=-1.0).build("llada"),
    lambda: Vanilla().build("gpt"),
    lambda: Decoder(D3LLM().build("llada").schedule, Quota("confidence"), DualCache()),
    lambda: Decoder(FastDLLM().build("llada").schedule, Quota("confidence"), DualCache(), cfg_scale=1.0),
    lambda: DreamSchedule("entropy", None, 1e-3, alg_temp=-1.0),
    lambda: preset("d3llm", factor=1.0),
    lambda: preset("beam"),
    lambda: Sampling(temperature=-1),
    lambda: Sampling(temperature=1e-38),
    lambda: Vanilla(cfg_scale=1e39).build("llada"),
    lambda: Vanilla(steps=10**9).build("dream"),
    lambda: FastDLLM(factor=1e300).build("llada"),
    lambda: Selective(recent=2**31).build("llada"),
    lambda: Selective(first_masks=-1).build("dream"),
    lambda: Selective(near=-1).build("llada"),
    lambda: Selective(0.5, relaxed_threshold=0.4).build("llada"),
    lambda: Decoder(SequentialBlocks(4), CarryQuota(0.9, 2), NoCache()),
    lambda: Decoder(SequentialBlocks(4), FirstPosition(CarryQuota(0.9, 2)), NoCache()),
    lambda: Sampling(top_p=0.0),
    lambda: Sampling(top_k=0),
    lambda: Sampling(seed=-1),
]


@pytest.mark.parametrize("make", BAD)
def test_bad_settings_give_a_short_error(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
