"""Selection rules and statistics on fixed numbers, against the reference functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.decoding.acceptance import (
    Acceptance,
    Carry,
    Confidence,
    Entropy,
    Factor,
    Facts,
    OpensBlock,
    Quota,
    TimeQuota,
    best,
    certainty,
    quotas,
    timesteps,
)
from d3mlx.decoding.presets import D3LLM, D3MLX, Decoder, FastDLLM, Vanilla, preset
from d3mlx.decoding.rows import Dual, Full
from d3mlx.decoding.sampling import Noise, Sampling
from d3mlx.decoding.schedule import Block, SequentialBlocks, View
from d3mlx.errors import ConfigError
from d3mlx.kernels.accept_blocks import OPEN, Accepted, Rule, accept_blocks
from d3mlx.kernels.noise import mx_const
from d3mlx.kernels.token_stats import TokenStats, token_stats

UNIT = json.loads((Path(__file__).parents[1] / "golden" / "unit.json").read_text())
LOGITS = np.array(UNIT["gumbel"]["logits"], np.float32)


def facts_of(logits: Any, positions: Any = None) -> Facts:
    columns = [np.array(column) for column in token_stats(mx.array(logits), excluded=-1)]
    count = len(logits)
    places = np.arange(count, dtype=np.int32) if positions is None else np.array(positions, np.int32)
    view = View((Block(0, 1000, count, full=True),))
    return Facts(places, *columns, view, Noise(0))


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
    """Statistics of made-up rows, and what a rule accepts of them."""

    positions: Any
    stats: TokenStats
    view: View

    def accept(self, rule: Acceptance) -> dict[int, int]:
        """Accepted rows and their tokens."""
        record = rule.rule("step")
        assert isinstance(record, Rule)
        table = np.array([[b.start, b.end, b.masks, OPEN + b.full, 0, 0] for b in self.view.blocks], np.int32)
        packed = accept_blocks(self.stats, self.positions, table, record, ())
        tokens = Accepted.unpack(np.array(packed), len(self.positions)).tokens.tolist()
        return {i: token for i, token in enumerate(tokens) if token >= 0}


def rows_of(logits: Any, positions: Any = None, view: View | None = None, **changes: Any) -> Rows:
    count = len(logits)
    stats = token_stats(mx.array(logits), excluded=-1)
    kinds = {name: mx.int32 if "token" in name or name == "sampled" else mx.float32 for name in changes}
    stats = stats._replace(**{name: mx.array(value, kinds[name]) for name, value in changes.items()})
    places = np.arange(count, dtype=np.int32) if positions is None else np.array(positions, np.int32)
    return Rows(places, stats, view or View((Block(0, 1000, count, full=True),)))


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
        chosen = best(facts_of(LOGITS[masked], masked).p_sampled, case["k"]).tolist()
    else:
        chosen = list(rows_of(LOGITS[masked], masked).accept(Confidence(case["threshold"])))
    assert sorted(masked[chosen].tolist()) == case["accepted"]


@pytest.mark.parametrize("case", UNIT["sample_tokens"])
def test_filtered_statistics(case: Any) -> None:
    options = dict(case["kwargs"])
    measure = "margin" if options.pop("margin_confidence", False) else "confidence"
    if options.pop("neg_entropy", False):
        measure = "entropy"
    facts = facts_of(np.array(Sampling(**options).filtered(mx.array(LOGITS))))
    assert certainty(measure, facts) == pytest.approx(np.array(case["confidence"]), abs=2e-6)  # type: ignore[arg-type]
    assert facts.sampled.tolist() == case["tokens"]


@pytest.mark.parametrize("case", UNIT["top_p_kept"])
def test_top_p(case: Any) -> None:
    kept = np.isfinite(np.array(Sampling(top_p=case["top_p"]).filtered(mx.array(LOGITS))))
    assert [np.flatnonzero(row).tolist() for row in kept] == case["kept"]


def test_a_likely_mask_token_takes_no_place_among_the_kept() -> None:
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
    """A tie with the threshold passes in LLaDA and not in Dream; LLaDA also takes the best, wherever it is."""
    view = View((Block(0, 2, 2, full=True), Block(2, 4, 2, full=False)))
    rows = rows_of(np.zeros((4, 4)), view=view, entropy=[0.9, 0.8, 0.3, 0.5], token=[4, 5, 6, 7])
    assert list(rows.accept(Entropy(0.5))) == [1, 2, 3]
    dream = Entropy(0.5, inclusive=False, best_always=False, force_likeliest=False)
    assert list(rows.accept(dream)) == [1, 2]
    # Over the threshold everywhere: LLaDA commits the best of all and the best of the focus block.
    assert list(rows.accept(Entropy(0.1))) == [1, 2]
    assert list(rows.accept(Entropy(0.1, best_always=False))) == [1]


def test_forced_progress_takes_the_likeliest_token_in_llada_and_the_drawn_one_in_dream() -> None:
    rows = rows_of(np.zeros((2, 4)), entropy=[0.9, 0.8], token=[4, 5], sampled=[6, 7])
    for likeliest, token in ((True, 5), (False, 7)):
        assert rows.accept(Entropy(0.1, best_always=False, force_likeliest=likeliest)) == {1: token}


def test_factor_rule() -> None:
    """Accept n while (n + 1)(1 - p_n) < factor; a scan that never fails, or only at the last, takes them all."""

    def accepted(*p: float) -> list[int]:
        return list(rows_of(np.zeros((len(p), 3)), p_sampled=p).accept(Factor(1.0)))

    assert accepted(0.2, 0.9, 0.1, 0.1) == [1]
    assert accepted(0.99, 0.9, 0.1, 0.1) == [0, 1]
    assert accepted(0.99, 0.9, 0.1) == [0, 1, 2]
    assert accepted(0.4) == [0]
    assert accepted(0.1, 0.5, 0.5, 0.1) == [1]


def test_noise_is_the_same_on_host_and_device_and_uniform() -> None:
    noise = Noise(7)
    index = np.arange(20000, dtype=np.uint32)
    host = noise.bits(index, 3, np.uint32)
    device = np.array(noise.bits(mx.array(index), 3, mx_const))
    assert (host == device).all()
    assert not (host == noise.bits(index, 4, np.uint32)).any()
    share = np.bincount(host >> np.uint32(28), minlength=16) / len(host)
    assert share == pytest.approx(np.full(16, 1 / 16), abs=0.008)


def test_gumbel_draws_follow_the_softmax() -> None:
    logits = mx.array([[1.0, 0.0, -1.0]])
    positions = mx.arange(20000)
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
    lambda: D3LLM(rows="dual").build("llada"),
    lambda: D3LLM(rows="full", cache_delay=1).build("llada"),
    lambda: FastDLLM(threshold=1.5).build("llada"),
    lambda: FastDLLM(threshold=0.5, factor=1.0).build("llada"),
    lambda: FastDLLM(factor=1.0).build("dream"),
    lambda: FastDLLM(factor=0.0).build("llada"),
    lambda: FastDLLM(rows="delayed").build("llada"),
    lambda: FastDLLM(steps=4).build("llada"),
    lambda: Vanilla(alg="entropy").build("llada"),
    lambda: Vanilla(alg="low_confidence").build("dream"),
    lambda: Vanilla(steps=0).build("llada"),
    lambda: Vanilla(eps=0.0).build("dream"),
    lambda: Vanilla(alg_temp=0.1).build("llada"),
    lambda: Vanilla(cfg_scale=1.0).build("dream"),
    lambda: Vanilla(cfg_scale=-1.0).build("llada"),
    lambda: Vanilla().build("gpt"),
    lambda: Decoder(D3LLM().build("llada").schedule, Quota(), Dual()),
    lambda: Decoder(FastDLLM().build("llada").schedule, Quota(), Dual(), cfg_scale=1.0),
    lambda: TimeQuota(alg_temp=-1.0),
    lambda: preset("d3llm", factor=1.0),
    lambda: preset("beam"),
    lambda: Sampling(temperature=-1),
    lambda: Sampling(temperature=1e-38),
    lambda: Vanilla(cfg_scale=1e39).build("llada"),
    lambda: Vanilla(steps=10**9).build("dream"),
    lambda: FastDLLM(factor=1e300).build("llada"),
    lambda: D3MLX(recent=2**31).build("llada"),
    lambda: D3MLX(ahead=-1).build("dream"),
    lambda: D3MLX(near=-1).build("llada"),
    lambda: Decoder(SequentialBlocks(4), Carry(0.9, 2), Full()),
    lambda: Decoder(SequentialBlocks(4), OpensBlock(Carry(0.9, 2)), Full()),
    lambda: Sampling(top_p=0.0),
    lambda: Sampling(top_k=0),
    lambda: Sampling(seed=-1),
]


@pytest.mark.parametrize("make", BAD)
def test_bad_settings_are_one_sentence(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
