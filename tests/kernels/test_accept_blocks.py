"""The acceptance kernel, compared with rules in plain Python and with its reference, and planted defects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.kernels import accept_blocks as module
from d3mlx.kernels.accept_blocks import Accepted, Rule, accept_blocks, reference
from d3mlx.kernels.token_stats import TokenStats
from tests.kernels.conftest import Executor
from tests.kernels.mutants import assert_caught, mutant
from tests.metal import Emulation, emulated
from tests.metal.requirements import require_compiler

NOISE = np.empty(0, np.float32)
"""Placeholder for the noise of a case, which has one number per row of the case."""

D3LLM = Rule("entropy", 0.5, best_always=True, force_likeliest=True)
STRICT = Rule("entropy", 0.0, inclusive=False, force_likeliest=True)
CONFIDENCE = Rule("confidence", 0.75, best_always=True)
FACTOR = Rule("factor", 0.3)
OPENING = Rule("opening")
FIRST = Rule("opening", best_always=True, force_likeliest=True)
COUNTED = Rule("confidence", most=3)
CARRIED = Rule("confidence", 0.75, most=5, best_always=True, progress=False)
DRAWN = Rule("random", most=2, noise=NOISE)
MARGIN = Rule("margin", most=3, progress=False)
HEATED = Rule("entropy", math.inf, most=3, progress=False, noise=NOISE, heat=0.25)
LEAST = Rule("confidence", 0.75, inclusive=False, best_always=True, least=3)
ORIGIN = Rule("random", -0.5, inclusive=False, progress=False, noise=NOISE)
RELAXED = Rule("entropy", 0.5, best_always=True, force_likeliest=True, noise=NOISE)
RULES = [
    D3LLM,
    RELAXED,
    STRICT,
    CONFIDENCE,
    FACTOR,
    OPENING,
    FIRST,
    COUNTED,
    CARRIED,
    DRAWN,
    MARGIN,
    HEATED,
    ORIGIN,
    LEAST,
    Rule("confidence", 0.5, least=0, progress=False),
    Rule("confidence", 0.75, least=10**6),
    Rule("entropy", 0.25, least=2),
    Rule("entropy", 0.5, inclusive=False),
    Rule("entropy", math.inf, best_always=True),
    Rule("entropy", 0.0, best_always=True),
    Rule("entropy", math.inf, most=4, progress=False),
    Rule("entropy", 0.5, most=2, best_always=True, force_likeliest=True),
    Rule("entropy", 0.25, progress=False),
    Rule("confidence", 0.5, inclusive=False, most=4),
    Rule("confidence", 0.5, progress=False),
    Rule("confidence", most=0, progress=False),
    Rule("confidence", most=0),
    Rule("confidence", most=0, best_always=True),
    Rule("confidence", most=10**6, progress=False),
    Rule("confidence", most=3, progress=False, noise=NOISE, heat=2.0),
    Rule("margin", 0.25, best_always=True),
    Rule("margin", most=2, progress=False, noise=NOISE, heat=0.5),
    Rule("random", -1.0, inclusive=False, progress=False, noise=NOISE),
    Rule("factor", 1.0),
    Rule("factor", 0.3, best_always=True),
    Rule("factor", 1.0, progress=False, noise=NOISE),
    Rule("opening", progress=False),
]
SCHEDULES = [Emulation(seed=1), Emulation(seed=2), Emulation(seed=3), Emulation(seed=4, preempt=7)]


class Case:
    """Statistics, positions and focus of a possible step.

    Numbers are eighths, and rules divide by powers of two. So ties are common, and no result is rounded.
    """

    def __init__(self, seed: int, sizes: list[int], all_masked: bool = False, equal: bool = False, start: int = 7):
        """Make blocks of these `sizes` from `start`. equal: all rows have the same numbers and the entropy +inf."""
        rng = np.random.default_rng(seed)
        ends = start + np.cumsum(sizes)
        blocks = [range(end - size, end) for size, end in zip(sizes, ends.tolist(), strict=True)]
        masked = [p for block in blocks for p in block if all_masked or rng.random() < 0.6] or [start]
        open_blocks = [block for block in blocks if any(p in block for p in masked)]
        focus = open_blocks[rng.integers(len(open_blocks))]
        self.first_full = focus.start, focus.stop
        self.positions = np.array(masked, np.int32)
        count = len(masked)
        self.token = rng.integers(80, 92, count).astype(np.int32)
        self.sampled = rng.integers(80, 92, count).astype(np.int32)

        def eighths(low: int, high: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
            numbers = np.full(count, rng.integers(low, high)) if equal else rng.integers(low, high, count)
            return (numbers / 8).astype(np.float32)

        self.p, self.p_sampled, self.noise = eighths(0, 9), eighths(0, 9), eighths(-8, 9)
        self.p2 = np.minimum(self.p, eighths(0, 5))
        self.entropy = eighths(0, 12)
        self.entropy[equal | (rng.random(count) < 0.05)] = np.inf

    @property
    def stats(self) -> TokenStats:
        columns = (self.token, self.p, self.p2, self.entropy, self.sampled, self.p_sampled)
        return TokenStats(*(mx.array(column) for column in columns))

    @property
    def on_host(self) -> TokenStats:
        return TokenStats(self.token, self.p, self.p2, self.entropy, self.sampled, self.p_sampled)

    def rule(self, rule: Rule) -> Rule:
        """Return `rule` with the noise of this case, if it takes noise."""
        return rule if rule.noise is None else rule._replace(noise=self.noise)


def scores_of(case: Case, rule: Rule) -> list[float]:
    """Return the score of each row."""
    if rule.kind in ("confidence", "factor"):
        scores = case.p_sampled.tolist()
    elif rule.kind == "entropy":
        scores = [-x for x in case.entropy.tolist()]
    elif rule.kind == "margin":
        scores = [first - second for first, second in zip(case.p.tolist(), case.p2.tolist(), strict=True)]
    else:
        scores = [0.0] * len(case.positions)
    if rule.noise is None:
        return scores
    return [score / rule.heat + noise for score, noise in zip(scores, case.noise.tolist(), strict=True)]


def truth(case: Case, rule: Rule) -> Accepted:
    """Return the result by the rules of the papers, computed position by position."""
    score = scores_of(case, rule)
    ranked = sorted(range(len(score)), key=lambda i: (-score[i], i))
    level = -rule.level if rule.kind == "entropy" else rule.level
    if rule.kind == "opening":
        passed = set()
    elif rule.kind == "factor":
        fails = [n for n, i in enumerate(ranked) if n > 0 and score[i] < 1 - rule.level / (n + 2)]
        count = fails[0] if fails else len(ranked)
        passed = set(ranked if count == len(ranked) - 1 else ranked[:count])
    else:
        best = ranked if rule.most is None else ranked[: rule.most]
        passed = {i for i in best if score[i] > level or (rule.inclusive and score[i] == level)}
    passed |= set(ranked[: rule.least or 0])
    if rule.best_always:
        passed.add(ranked[0])
    tokens = {i: int(case.sampled[i]) for i in passed}
    start, end = case.first_full
    inside = [i for i in ranked if start <= case.positions[i] < end]
    if rule.progress and not passed & set(inside):
        tokens[inside[0]] = int(case.token[inside[0]] if rule.force_likeliest else case.sampled[inside[0]])
    return Accepted(np.array([tokens.get(i, -1) for i in range(len(score))]), case.token, case.entropy)


def assert_right(packed: Any, case: Case, rule: Rule) -> None:
    assert packed.dtype in (mx.int32, np.int32)
    result, expected = Accepted.unpack(np.array(packed)), truth(case, rule)
    for name in Accepted._fields:
        assert getattr(result, name).tolist() == getattr(expected, name).tolist(), name


def check(case: Case, rule: Rule) -> None:
    assert_right(accept_blocks(case.stats, case.positions, case.first_full, case.rule(rule)), case, rule)


SHAPES: dict[str, Callable[[int], Case]] = {
    "one row": lambda seed: Case(seed, [1]),
    "few rows": lambda seed: Case(seed, [5]),
    "one block": lambda seed: Case(seed, [40]),
    "nothing committed": lambda seed: Case(seed, [16, 16, 16], all_masked=True),
    "a short last block": lambda seed: Case(seed, [8, 8, 8, 3]),
    "many blocks": lambda seed: Case(seed, [2] * 40),
    "more rows than threads": lambda seed: Case(seed, [300, 300], all_masked=True),
    "positions of more than 15 bits": lambda seed: Case(seed, [12, 12], start=32_755),
    "positions of more than 16 bits": lambda seed: Case(seed, [12, 12], start=65_530),
    "equal rows": lambda seed: Case(seed, [6, 6, 6], equal=True),
    "more equal rows than threads": lambda seed: Case(seed, [150, 150], all_masked=True, equal=True),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_the_rules(executor: Executor, shape: str) -> None:
    for seed, rule in enumerate(RULES):
        with executor(SCHEDULES[seed % len(SCHEDULES)]):
            check(SHAPES[shape](seed), rule)


@pytest.mark.parametrize("emulation", SCHEDULES, ids=lambda emulation: f"seed {emulation.seed}")
def test_every_rule_in_every_schedule(emulator: Executor, emulation: Emulation) -> None:
    with emulator(emulation):
        for seed, rule in enumerate(RULES):
            check(Case(seed, [12, 12, 12]), rule)


def test_under_arithmetic_noise_and_the_strict_lint(emulator: Executor) -> None:
    checked = set()
    for seed, rule in enumerate(RULES):
        name = module.kernel_of(rule).name
        with emulator(Emulation(seed=5, ulp_noise=4, strict=name not in checked)):
            check(Case(seed, [12, 12, 12]), rule)
        checked.add(name)


def test_a_quota_and_a_level_count_together(executor: Executor) -> None:
    """Fast-dLLM's quota: of the 3 most confident rows, those that reach the level commit, and always the best row."""
    case = Case(0, [5], all_masked=True)
    case.sampled[:] = [80, 81, 82, 83, 84]
    for p, expected in (
        ([0.875, 0.75, 1.0, 0.875, 1.0], [80, -1, 82, -1, 84]),
        ([0.5, 0.75, 1.0, 0.25, 0.5], [-1, 81, 82, -1, -1]),
        ([0.5, 0.5, 0.25, 0.625, 0.5], [-1, -1, -1, 83, -1]),
    ):
        case.p_sampled[:] = p
        with executor(Emulation(seed=1)):
            packed = accept_blocks(case.stats, case.positions, case.first_full, CARRIED._replace(most=3))
        assert Accepted.unpack(np.array(packed)).tokens.tolist() == expected


@pytest.mark.parametrize("rule", [D3LLM, CONFIDENCE, COUNTED, HEATED], ids=lambda rule: str(rule.kind))
def test_damaged_rows_are_reported(executor: Executor, rule: Rule) -> None:
    """The entropy of a damaged row is always NaN, so the engine can detect the damage."""
    for damaged in ([0], [3, 8], range(12)):
        case = Case(2, [12], all_masked=True)
        for column in (case.p, case.p2, case.p_sampled, case.entropy):
            column[list(damaged)] = np.nan
        inputs = case.stats, case.positions, case.first_full, case.rule(rule)
        with executor(Emulation(seed=1)):
            accepted = Accepted.unpack(np.array(accept_blocks(*inputs)))
        expected = Accepted.unpack(np.array(accept_blocks(*inputs)))
        for result in (accepted, expected):
            assert np.flatnonzero(np.isnan(result.entropies)).tolist() == list(damaged)


cases = st.builds(
    Case,
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    all_masked=st.booleans(),
    equal=st.integers(0, 9).map(lambda number: number == 0),
)


@settings(max_examples=300)
@given(case=cases, rule=st.sampled_from(RULES))
def test_reference_equals_the_rules(case: Case, rule: Rule) -> None:
    assert_right(reference(case.on_host, case.positions, case.first_full, case.rule(rule)), case, rule)


@settings(max_examples=60)
@given(case=cases, rule=st.sampled_from(RULES), most=st.none() | st.integers(0, 12), seed=st.integers(0, 100))
def test_kernel_reference_and_rules_agree(case: Case, rule: Rule, most: int | None, seed: int) -> None:
    require_compiler()
    rule = rule._replace(most=most) if rule.least is None else rule._replace(least=most)
    with emulated(Emulation(seed=seed)) as records:
        check(case, rule)
    assert len(records) == 1
    assert_right(reference(case.on_host, case.positions, case.first_full, case.rule(rule)), case, rule)


def test_one_launch_and_12_bytes_per_row(emulator: Executor) -> None:
    case = Case(1, [32] * 8)
    for rule in RULES:
        with emulator(Emulation()) as records:
            packed = accept_blocks(case.stats, case.positions, case.first_full, case.rule(rule))
            mx.eval(packed)
        assert len(records) == 1
        assert packed.nbytes == records[0].traffic["out"].size == 12 * len(case.positions)


WAIT = "threadgroup_barrier(mem_flags::mem_threadgroup);"
STORE = """  if (lane == 0) {
    part[group] = value;
  }
"""
INSIDE = "positions[i] >= start && positions[i] < stop"
MUTANTS: dict[str, tuple[str, str, Rule]] = {
    "wrong reduction identity": ("part[lane] : -INFINITY", "part[lane] : 0.0f", D3LLM),
    "missing barrier": (f"{STORE}  {WAIT}\n", STORE, D3LLM),
    "stale slot reused without a barrier": (f"  {WAIT}\n{STORE}", STORE, D3LLM),
    "end of the focus one late": ("positions[i] < stop", "positions[i] <= stop", STRICT),
    "start of the focus one late": ("positions[i] >= start", "positions[i] > start", STRICT),
    "positions of 16 bits": ("positions[i] < stop", "short(positions[i]) < short(stop)", STRICT),
    "positions of 16 bits without sign": ("positions[i] < stop", "ushort(positions[i]) < ushort(stop)", STRICT),
    "progress outside the focus counts": (f"if (passed && {INSIDE})", "if (passed)", D3LLM),
    "forced row outside the focus": (f"if ({INSIDE} && score == top_inside)", "if (score == top_inside)", OPENING),
    "best of all instead of the best of the focus": (
        f"if ({INSIDE}) {{\n      top_inside",
        "if (true) {\n      top_inside",
        STRICT,
    ),
    "progress that the rule does not require": ("PROGRESS ? 1 : 0", "1", ORIGIN),
    "no forced progress": ("none_passed == 1 && i", "none_passed == 2 && i", OPENING),
    "forced row takes the drawn token": ("FORCE_LIKELIEST ? token[i] : sampled[i]", "sampled[i]", STRICT),
    "the best does not always pass": ("BEST_ALWAYS && i == best", "false", CARRIED),
    "last of equal rows in the focus": (
        "metal::min(best_inside, i)",
        "best_inside == nowhere ? i : metal::max(best_inside, i)",
        OPENING,
    ),
    "last of equal best rows": ("metal::min(best, i)", "best == nowhere ? i : metal::max(best, i)", FIRST),
    "strict threshold": ("score >= threshold", "score > threshold", D3LLM),
    "threshold that includes its level": ("score > threshold", "score >= threshold", ORIGIN),
    "ranks among too few rows": ("for (int j = 0; j < rows; j++)", "for (int j = 0; j < rows - 1; j++)", COUNTED),
    "last of equal ranks": ("other == score && j < i", "other == score && j > i", COUNTED),
    "equal rows share a rank": (" || (other == score && j < i)", "", COUNTED),
    "rank from the wrong end": ("other > score ||", "other < score ||", MARGIN),
    "one more than the limit": ("out[i] < limit", "out[i] <= limit", MARGIN),
    "at least one row too few": ("out[i] < limit", "out[i] + 1 < limit", LEAST),
    "level without the least": (" || out[i] < limit", "", LEAST),
    "no limit": (" && out[i] < limit", "", CARRIED),
    "limit without a level": ("score >= threshold && ", "", CARRIED),
    "noise of another row": ("noise[j]", "noise[i]", DRAWN),
    "no noise": (" + noise[i]", "", ORIGIN),
    "noise before the heat": ("/ heat + noise[j]", "+ noise[j] / heat", HEATED),
    "heat that multiplies": ("/ heat", "* heat", HEATED),
    "probability instead of a margin": ("p[i] - p2[i]", "p[i]", MARGIN),
    "margin to the drawn token": ("- p2[", "- p_sampled[", MARGIN),
    "confidence in another token": ("p_sampled[", "p[", CONFIDENCE),
    "entropy with the wrong sign": ("-entropy[", "entropy[", HEATED),
    "factor rule: last row left out": ("failed == rows - 1 ? rows : failed", "failed", FACTOR),
    "factor rule: strict bound": ("score < bounds[rank]", "score <= bounds[rank]", Rule("factor", 1.0)),
    "factor rule: first failure of one thread": ("failed = group_min(failed", "group_min(failed", FACTOR),
    "guess is the drawn token": ("out[rows + i] = token[i]", "out[rows + i] = sampled[i]", D3LLM),
    "entropy of a neighbor": ("as_type<int>(entropy[i])", "as_type<int>(entropy[rows - 1 - i])", D3LLM),
    "output one row short": ("out[2 * rows + i] =", "out[2 * rows + i - 1] =", D3LLM),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_defects_are_caught(name: str, emulator: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, rule = MUTANTS[name]
    wrong = mutant(module.kernel_of(rule), old, new)
    monkeypatch.setattr(module, "kernel_of", lambda _: wrong)

    def attempts() -> None:
        for seed in range(12):
            with emulator(Emulation(seed=seed)):
                check(Case(seed, [9, 9, 9, 9]), rule)
                check(Case(seed, [1, 2, 2, 9]), rule)
                check(Case(seed, [4] * 8), rule)
                check(Case(seed, [3, 3, 3], equal=True), rule)
                check(Case(seed, [500, 9], all_masked=True), rule)
                for start in (32_755, 65_530):
                    check(Case(seed, [12, 12], start=start), rule)

    assert_caught(attempts)
