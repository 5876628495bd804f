"""The kernel of token statistics, compared with float64 NumPy and its reference."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.kernels import token_stats as kernels
from d3mlx.kernels.dispatch import on_host
from d3mlx.kernels.noise import mixed
from d3mlx.kernels.token_stats import Choice, Draw, TokenStats, token_stats
from tests.kernels.conftest import Executor
from tests.metal import Emulation, emulated

DTYPES = [mx.float32, mx.float16, mx.bfloat16]
SCHEDULES = [Emulation(seed=1), Emulation(seed=2), Emulation(seed=3), Emulation(seed=4, preempt=7)]
CHOICES = ["likeliest", "scores", "draw", "mixed draw"]
FLOOR = 4e-7
"""Relative error of a few units in the last place. Stock operations have smaller errors only by chance."""

Array = npt.NDArray[Any]


def rows(width: int, seed: int = 0, dtype: mx.Dtype = mx.float32, excluded: int = -1) -> mx.array:
    """Return logits [6, width]: plain, with ties, half -inf, all -inf, near the limits, excluded id highest."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, width)) * 4
    x[1] = np.round(x[1] / 4)
    x[2, rng.permutation(width)[: width // 2]] = -np.inf
    x[3] = -np.inf
    x[4, ::2] = -3e38 if dtype != mx.float16 else -6e4
    x[5, max(excluded, 0)] = 200
    return mx.array(x.astype(np.float32)).astype(dtype)


def mixed_draw(count: int, seed: int = 0) -> Draw:
    """Return a draw in which each of `count` rows has its own position, temperature, seed and call."""
    index = np.arange(count)
    temperatures = np.array([0.7, 0.0, 1.3, 0.0, 0.2, 4.0], np.float32)[index % 6]
    seeds, calls = (seed + 11 + index % 7).astype(np.uint32), (3 + index % 4).astype(np.uint32)
    return Draw((5 + 3 * (index // 2)).astype(np.int32), temperatures, seeds, calls)


def choice_of(kind: str, logits: mx.array, seed: int = 0) -> Choice:
    count = logits.shape[0]
    if kind == "likeliest":
        return None
    if kind == "mixed draw":
        return mixed_draw(count, seed)
    draw = Draw.of(np.arange(5, 5 + count, dtype=np.int32), 0.7, seed + 11, 3)
    return draw.scores(logits) if kind == "scores" else draw


def reference(logits: mx.array, excluded: int, choice: Choice = None) -> TokenStats:
    """Return the result of the reference for arrays on the device."""
    given = on_host(choice) if isinstance(choice, mx.array) else choice
    return kernels.reference(on_host(logits), excluded, given)


def same(column: Any, other: Any) -> bool:
    return np.array_equal(np.array(column), np.array(other))


def float64(x: mx.array) -> Array:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def true_scores(logits: mx.array, choice: Choice) -> Array:
    """Return the scores that the sampled token maximizes, float64 [N, V]."""
    x = float64(logits)
    if choice is None:
        return x
    if not isinstance(choice, Draw):
        return float64(choice)
    width = np.uint32(x.shape[1])
    with np.errstate(over="ignore"):
        index = choice.positions.astype(np.uint32)[:, None] * width + np.arange(width, dtype=np.uint32)
        bits = mixed(index, choice.seeds[:, None], choice.calls[:, None], np.uint32)
    drawn = -np.log(-np.log((bits.astype(np.float64) + 0.5) / 2**32))
    heat = choice.temperatures.astype(np.float64)[:, None]
    return np.where(heat > 0, x / np.where(heat > 0, heat, 1) + drawn, x)


def truth(logits: mx.array) -> tuple[Array, Array]:
    """Return probabilities [N, V] and entropies [N] in float64. A row of -inf has probabilities 0 and entropy +inf."""
    x = float64(logits)
    top = x.max(axis=1, keepdims=True)
    weights = np.exp(x - np.where(np.isinf(top), 0, top))
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(total > 0, weights / total, 0)
        entropy = np.where(total[:, 0] > 0, -np.where(p > 0, p * np.log(p), 0).sum(axis=1), np.inf)
    return p, entropy


def stock(logits: mx.array) -> tuple[Array, Array]:
    """Return probabilities [N, V] and entropies [N] computed with stock operations in float32."""
    p = mx.softmax(logits.astype(mx.float32), axis=-1)
    entropy = -mx.where(p > 0, p * mx.log(p), 0.0).sum(axis=-1)
    return np.array(p), np.array(entropy)


def error(result: Array, true: Array) -> Array:
    """Return the relative error above 1 and the absolute error below, where an entropy is a difference of numbers."""
    return np.abs(result - true) / np.maximum(np.abs(true), 1)


def check(stats: TokenStats, logits: mx.array, excluded: int, choice: Choice, slack: float = 1.0) -> None:
    """Check that ids are exact, and that errors are at most `slack` times those of stock operations."""
    token, p, p2, entropy, sampled, p_sampled = (np.array(column) for column in stats)
    x, every = float64(logits), np.arange(len(token))
    allowed = np.arange(x.shape[1]) != excluded
    if not allowed.any():
        allowed[:] = True
    true_p, true_entropy = truth(logits)
    np.testing.assert_array_equal(token, first(x, allowed))
    scores = np.where(allowed, true_scores(logits, choice), -np.inf)
    best = scores.max(axis=1)
    assert allowed[sampled].all()
    none = np.isinf(best)
    assert (sampled[none] == np.flatnonzero(allowed)[0]).all()
    lost = best[~none] - scores[every, sampled][~none]
    assert (lost <= 1e-5 * slack * np.maximum(1, np.abs(best[~none]))).all()

    others = np.where(allowed, true_p, 0)
    others[every, token] = 0
    stock_p, stock_entropy = stock(logits)
    full = np.isfinite(true_entropy)
    bound = max(FLOOR, error(stock_p[full], true_p[full]).max(initial=0)) * slack
    for result, true in ((p, true_p[every, token]), (p2, others.max(axis=1)), (p_sampled, true_p[every, sampled])):
        assert error(result, true).max() <= bound
    assert (entropy[~full] == np.inf).all()
    bound = max(FLOOR, error(stock_entropy[full], true_entropy[full]).max(initial=0)) * slack
    assert error(entropy[full], true_entropy[full]).max(initial=0) <= bound


def first(x: Array, allowed: npt.NDArray[np.bool_]) -> Array:
    """Return the best allowed id of each row, int [N]; for a row of -inf, the lowest allowed id."""
    candidates = np.flatnonzero(allowed)
    return candidates[x[:, candidates].argmax(axis=1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.parametrize("width", [1, 31, 33, 1000])
def test_statistics(executor: Executor, width: int, kind: str, dtype: mx.Dtype) -> None:
    excluded = width // 3
    logits = rows(width, width, dtype, excluded)
    choice = choice_of(kind, logits)
    expected = reference(logits, excluded, choice)
    check(expected, logits, excluded, choice, slack=2)
    for emulation in SCHEDULES:
        with executor(emulation):
            result = token_stats(logits, excluded, choice)
        check(result, logits, excluded, choice)
        assert same(result.token, expected.token)
        assert same(result.sampled, expected.sampled)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vocabularies_of_llada_and_dream(executor: Executor, dtype: mx.Dtype) -> None:
    for width, kind, emulation in zip((126464, 126464, 152064, 152064), CHOICES, SCHEDULES, strict=True):
        logits = rows(width, 5, dtype)[:2]
        choice = choice_of(kind, logits)
        with executor(emulation):
            result = token_stats(logits, 126336, choice)
        check(result, logits, 126336, choice)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", CHOICES)
def test_inputs_of_fewer_than_eight_elements(executor: Executor, kind: str, dtype: mx.Dtype) -> None:
    """MLX passes these in another address space."""
    for shape in ((1, 1), (1, 7), (2, 3)):
        logits = rows(shape[1], 3, dtype)[: shape[0]]
        choice = choice_of(kind, logits)
        with executor(Emulation(seed=1)):
            check(token_stats(logits, -1, choice), logits, -1, choice)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", CHOICES)
def test_inexact_arithmetic(emulator: Executor, kind: str, dtype: mx.Dtype) -> None:
    """As on a GPU, functions have errors of up to 4 units in the last place, and products may be contracted."""
    logits = rows(1000, 9, dtype)
    choice = choice_of(kind, logits)
    with emulator(Emulation(seed=5, ulp_noise=4)):
        check(token_stats(logits, 7, choice), logits, 7, choice, slack=8)


def test_many_strided_rows(executor: Executor) -> None:
    logits = mx.concatenate([rows(40, seed) for seed in range(4)]).reshape(2, 12, 40).transpose(1, 0, 2)[:, 1]
    for kind in ("draw", "mixed draw"):
        choice = choice_of(kind, logits)
        with executor(Emulation(seed=1)):
            check(token_stats(logits, 2, choice), logits, 2, choice)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_draws_the_token_that_it_draws_alone(executor: Executor, dtype: mx.Dtype) -> None:
    """Requests with different temperatures, seeds and calls share a launch, and rows do not depend on each other."""
    logits = mx.concatenate([rows(200, seed, dtype) for seed in range(3)])
    draw = mixed_draw(len(logits))
    likeliest = token_stats(logits, 7).token.tolist()
    for emulation in SCHEDULES:
        with executor(emulation):
            together = token_stats(logits, 7, draw)
            for i in range(len(logits)):
                row = slice(i, i + 1)
                alone = Draw(draw.positions[row], draw.temperatures[row], draw.seeds[row], draw.calls[row])
                stats = token_stats(logits[row], 7, alone)
                assert [column[i].item() for column in together] == [column.item() for column in stats]
                if draw.temperatures[i] == 0:
                    assert together.sampled[i].item() == likeliest[i]
    drawn = [together.sampled[i].item() != likeliest[i] for i in np.flatnonzero(draw.temperatures)]
    assert any(drawn)


def test_joined_draws_are_the_draws_of_their_requests(executor: Executor) -> None:
    parts = [rows(60, seed)[: seed + 1] for seed in range(4)]
    draws = [
        Draw.of(np.arange(9, 9 + len(part), dtype=np.int32), temperature, seed, call)
        for part, temperature, seed, call in zip(
            parts, (0.0, 0.8, 1.5, 0.8), (1, 2, 2**32 - 1, 2), (0, 5, 6, 7), strict=True
        )
    ]
    joined = Draw.join(draws)
    assert [draw.greedy for draw in (*draws, joined)] == [True, False, False, False, False]
    logits = mx.concatenate(parts)
    with executor(Emulation(seed=1)):
        together = token_stats(logits, -1, joined)
        alone = [token_stats(part, -1, draw).sampled for part, draw in zip(parts, draws, strict=True)]
    check(together, logits, -1, joined)
    assert same(together.sampled, np.concatenate([np.array(part) for part in alone]))
    assert same(together.sampled, reference(logits, -1, joined).sampled)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_logits_are_detected(executor: Executor, bad: float) -> None:
    """If a logit is NaN or infinite, the probability or the entropy is NaN."""
    x = np.array(rows(100))
    for column in (0, 3, 99):
        x[:, column] = bad
        damaged = mx.array(x)
        expected = reference(damaged, -1)
        with executor(Emulation(seed=1)):
            result = token_stats(damaged, -1)
        for stats in (expected, result):
            assert (np.isnan(np.array(stats.p)) | np.isnan(np.array(stats.entropy))).all()


def test_excluded_id_zero(executor: Executor) -> None:
    """A row without any allowed logit gives the lowest allowed id."""
    for width in (1, 2, 40):
        logits = mx.full((2, width), -mx.inf)
        logits[:, 0] = 1.0
        expected = reference(logits, 0)
        with executor(Emulation(seed=1)):
            result = token_stats(logits, 0)
        assert result.token.tolist() == expected.token.tolist() == [min(1, width - 1)] * 2
        assert result.p.tolist() == expected.p.tolist() == ([1.0] * 2 if width == 1 else [0.0] * 2)


def test_an_excluded_id_outside_the_vocabulary_excludes_nothing(executor: Executor) -> None:
    logits = rows(9, 1)
    for excluded in (9, 20):
        expected = reference(logits, excluded)
        check(expected, logits, -1, None)
        with executor(Emulation(seed=1)):
            check(token_stats(logits, excluded), logits, -1, None)


def test_logits_are_read_once(emulator: Executor) -> None:
    logits = rows(5000)
    for kind, arrays in (("likeliest", 1), ("scores", 2), ("draw", 1), ("mixed draw", 1)):
        with emulated() as records:
            token_stats(logits, 3, choice_of(kind, logits))
        (record,) = records
        read = {name: traffic.read for name, traffic in record.traffic.items()}
        large = read.pop("logits") + read.pop("scores", 0)
        assert 0.999 * logits.nbytes * arrays <= large <= 1.05 * logits.nbytes * arrays
        assert sum(read.values()) <= 32 * kernels.THREADS * len(logits)  # a few words per thread, whatever the width
        assert sum(traffic.written for traffic in record.traffic.values()) == 6 * 4 * len(logits)


@st.composite
def problems(draw: Any) -> tuple[mx.array, int, Choice]:
    width, count = draw(st.integers(1, 150)), draw(st.integers(1, 3))
    special = st.sampled_from([-np.inf, 0.0, 1.0, -1e30, 3.0])
    values = draw(st.lists(st.floats(-30, 30, width=16) | special, min_size=width * count, max_size=width * count))
    logits = mx.array(np.array(values, np.float32).reshape(count, width)).astype(draw(st.sampled_from(DTYPES)))
    choice = choice_of(draw(st.sampled_from(CHOICES)), logits, draw(st.integers(0, 2**31)))
    return logits, draw(st.integers(-1, width - 1)), choice


FULL_RANGE = [-2e38, 2e38, 0.0, -1.0, 2e38, -2e38, 1e-38, 1.0]
"""Logits whose differences overflow in float32."""


def full_range(width: int) -> mx.array:
    """Return logits [2, width] over the whole float range: the largest comes first, and it comes last."""
    logits = np.resize(np.array(FULL_RANGE, np.float32), (1, width))
    return mx.array(np.concatenate([logits, np.sort(logits)]))


@pytest.mark.parametrize("kind", ["likeliest", "scores", "draw"])
def test_a_row_of_the_whole_float_range(executor: Executor, kind: str) -> None:
    logits = full_range(300)
    with executor(Emulation(seed=1)):
        stats = token_stats(logits, 2, choice_of(kind, logits))
    check(stats, logits, 2, choice_of(kind, logits))


def tied_scores() -> tuple[mx.array, mx.array]:
    """Return logits [2, 1000], and scores that are equal for all ids, and for the ids from 500 on."""
    scores = np.zeros((2, 1000), np.float32)
    scores[1, 500:] = 1
    return mx.concatenate([rows(1000)[:1]] * 2), mx.array(scores)


def check_tied_scores() -> None:
    """Check that the lowest allowed id wins among equal scores, in all lanes and SIMD-groups."""
    assert token_stats(tied_scores()[0], 0, tied_scores()[1]).sampled.tolist() == [1, 500]


def test_the_lowest_id_wins_among_equal_scores(executor: Executor) -> None:
    for emulation in SCHEDULES:
        with executor(emulation):
            check_tied_scores()
    check_tied_scores()


@settings(max_examples=40)
@given(problems(), st.integers(0, 1000))
def test_kernel_reference_and_numpy_agree(problem: tuple[mx.array, int, Choice], seed: int) -> None:
    logits, excluded, choice = problem
    with emulated(Emulation(seed=seed)):
        result = token_stats(logits, excluded, choice)
    expected = reference(logits, excluded, choice)
    for stats in (result, expected):
        check(stats, logits, excluded, choice, slack=2)
    assert same(result.token, expected.token)
