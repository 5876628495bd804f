"""The acceptance kernel: against the rules written out in Python, its reference, and planted defects."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.kernels import accept_blocks as module
from d3mlx.kernels.accept_blocks import CLOSED, FULL, OPEN, STATE, Accepted, Rule, accept_blocks, reference
from d3mlx.kernels.token_stats import TokenStats
from tests.kernels.conftest import Executor
from tests.kernels.mutants import assert_caught, mutant
from tests.metal import Emulation, emulated
from tests.metal.requirements import require_compiler

RULES = [
    Rule("entropy", 0.5, best_always=True, force_likeliest=True),
    Rule("entropy", 0.5, inclusive=False),
    Rule("entropy", float("inf"), best_always=True),
    Rule("entropy", 0.0, best_always=True),
    Rule("confidence", 0.75, best_always=True),
    Rule("factor", 1.0),
    Rule("factor", 0.3),
    Rule("opening"),
    Rule("opening", best_always=True, force_likeliest=True),
    Rule("factor", 0.3, best_always=True),
    Rule("entropy", 0.0, inclusive=False, force_likeliest=True),
]
SCHEDULES = [Emulation(seed=1), Emulation(seed=2), Emulation(seed=3), Emulation(seed=4, preempt=7)]
ENDS = (90, 91)


class Case:
    """Statistics and blocks that a step of a decode might meet. Numbers are eighths, so that ties are common."""

    def __init__(self, seed: int, sizes: list[int], opened: int, all_masked: bool = False):
        rng = np.random.default_rng(seed)
        ends = 7 + np.cumsum(sizes)
        rows = []
        positions: list[int] = []
        for b, (size, end) in enumerate(zip(sizes, ends.tolist(), strict=True)):
            masked = [p for p in range(end - size, end) if all_masked or b >= opened or rng.random() < 0.6]
            state = CLOSED if b >= opened else FULL if b == 0 or rng.random() < 0.5 else OPEN
            rows.append((end - size, end, len(masked), state, rng.integers(0, size + 1), rng.integers(0, size + 1)))
            positions += masked if b < opened else []
        self.table = np.array(rows, np.int32)
        if not positions:
            positions = [7]
            self.table[0, 2] = 1
        if not ((self.table[:, STATE] == FULL) & (self.table[:, 2] > 0)).any():
            self.table[np.flatnonzero((self.table[:, STATE] > CLOSED) & (self.table[:, 2] > 0))[0], STATE] = FULL
        self.positions = np.array(positions, np.int32)
        count = len(positions)
        tokens, sampled = rng.integers(80, 92, count), rng.integers(80, 92, count)
        entropy = np.where(rng.random(count) < 0.05, np.inf, rng.integers(0, 12, count) / 8)
        p = rng.integers(0, 9, count) / 8
        self.entropy, self.p_sampled = entropy.astype(np.float32), p.astype(np.float32)
        self.token, self.sampled = tokens.astype(np.int32), sampled.astype(np.int32)

    @property
    def stats(self) -> TokenStats:
        p = mx.array(self.p_sampled)
        return TokenStats(mx.array(self.token), p, p, mx.array(self.entropy), mx.array(self.sampled), p)


def truth(case: Case, rule: Rule, ends: tuple[int, ...]) -> Accepted:
    """The rules of the papers, one position after another."""
    rows = range(len(case.positions))
    table = case.table.tolist()
    start, stop = next((b[0], b[1]) for b in table if b[STATE] == FULL and b[2] > 0)
    inside = [i for i in rows if start <= case.positions[i] < stop]
    score: list[float] = {"entropy": (-case.entropy).tolist(), "opening": [0.0] * len(rows)}.get(
        rule.kind, case.p_sampled.tolist()
    )
    passed: set[int] = set()
    if rule.kind == "entropy":
        passed = {i for i in rows if score[i] > -rule.level or (rule.inclusive and score[i] == -rule.level)}
    elif rule.kind == "confidence":
        passed = {i for i in rows if score[i] >= rule.level}
    elif rule.kind == "factor":
        ranked = sorted(rows, key=lambda i: (-score[i], i))
        fails = [n for n in rows if n > 0 and score[ranked[n]] < 1 - rule.level / (n + 2)]
        count = fails[0] if fails else len(ranked)
        passed = set(ranked if count == len(ranked) - 1 else ranked[:count])
    if rule.best_always:
        passed.add(max(rows, key=lambda i: (score[i], -i)))
    tokens = {i: int(case.sampled[i]) for i in passed}
    if not passed & set(inside):
        best = max(inside, key=lambda i: (score[i], -i))
        tokens[best] = int(case.token[best] if rule.force_likeliest else case.sampled[best])
    cut = min([int(case.positions[i]) + 1 for i, token in tokens.items() if token in ends], default=10**9)
    masks = []
    for first, last, before, state, *_ in table:
        if state == CLOSED:
            masks.append(min(before, max(0, min(last, cut) - first)))
        else:
            masks.append(sum(first <= case.positions[i] < min(last, cut) and i not in tokens for i in rows))
    states = [table[0][STATE]]
    for b in range(1, len(table)):
        _, _, _, state_before, add, fill = table[b - 1]
        full = masks[b - 1] <= fill
        state = table[b][STATE]
        if state == CLOSED and state_before > CLOSED and masks[b - 1] <= add:
            state = FULL if full else OPEN
        elif state == OPEN and full:
            state = FULL
        states.append(state)
    chosen = np.array([tokens.get(i, -1) for i in rows])
    return Accepted(chosen, case.token, case.entropy, np.array(masks), np.array(states))


def check(case: Case, rule: Rule, ends: tuple[int, ...] = ENDS) -> None:
    packed = accept_blocks(case.stats, case.positions, case.table, rule, ends)
    assert packed.dtype == mx.int32
    found, expected = Accepted.unpack(np.array(packed), len(case.positions)), truth(case, rule, ends)
    for name in Accepted._fields:
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name


SHAPES: dict[str, Callable[[int], Case]] = {
    "one row": lambda seed: Case(seed, [1], 1),
    "few rows": lambda seed: Case(seed, [5], 1),
    "one block": lambda seed: Case(seed, [40], 1),
    "none committed": lambda seed: Case(seed, [16, 16, 16], 3, all_masked=True),
    "a short last block": lambda seed: Case(seed, [8, 8, 8, 3], 2),
    "more rows than threads": lambda seed: Case(seed, [300, 300], 2),
    "32 blocks": lambda seed: Case(seed, [8] * 32, 20),
    "more blocks than threads": lambda seed: Case(seed, [1] * 300, 290),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_the_rules(executor: Executor, shape: str) -> None:
    for seed, rule in enumerate(RULES):
        with executor(SCHEDULES[seed % len(SCHEDULES)]):
            check(SHAPES[shape](seed), rule)
            check(SHAPES[shape](seed + 100), rule, ())


@pytest.mark.parametrize("place", [0, -1])
def test_an_end_token_first_and_last(executor: Executor, place: int) -> None:
    case = Case(3, [6, 6, 6], 2, all_masked=True)
    case.sampled[:] = 80
    case.sampled[place] = ENDS[1]
    for schedule in SCHEDULES:
        with executor(schedule):
            check(case, Rule("entropy", float("inf")))


def test_under_arithmetic_noise_and_the_strict_lint(emulator: Executor) -> None:
    with emulator(Emulation(seed=5, ulp_noise=4, strict=True)):
        for seed, rule in enumerate(RULES):
            check(Case(seed, [12, 12, 12], 2), rule)


cases = st.builds(
    Case,
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    opened=st.integers(1, 12),
)


@settings(max_examples=150, deadline=None)
@given(case=cases, rule=st.sampled_from(RULES), ended=st.booleans())
def test_reference_equals_the_rules(case: Case, rule: Rule, ended: bool) -> None:
    check(case, rule, ENDS if ended else ())


@settings(max_examples=40, deadline=None)
@given(case=cases, rule=st.sampled_from(RULES), seed=st.integers(0, 100))
def test_kernel_reference_and_rules_agree(case: Case, rule: Rule, seed: int) -> None:
    require_compiler()
    with emulated(Emulation(seed=seed)) as records:
        check(case, rule)
    assert len(records) == 1
    inputs = case.stats, mx.array(case.positions), mx.array(case.table), rule, mx.array([-1, *ENDS])
    packed = reference(*inputs)
    assert (
        Accepted.unpack(np.array(packed), len(case.positions)).tokens.tolist()
        == truth(case, rule, ENDS).tokens.tolist()
    )


WAIT = "threadgroup_barrier(mem_flags::mem_threadgroup);"
STORE = """  if (lane == 0) {
    part[group] = value;
  }
"""
MUTANTS: dict[str, tuple[str, str, Rule]] = {
    "wrong reduction identity": ("part[lane] : -INFINITY", "part[lane] : 0.0f", RULES[3]),
    "missing barrier": (f"{STORE}  {WAIT}\n", STORE, RULES[0]),
    "stale slot reused without a barrier": (f"  {WAIT}\n{STORE}", STORE, RULES[0]),
    "rows counted before all are written": ("threadgroup_barrier(mem_flags::mem_device);", "", RULES[0]),
    "off-by-one bound of a block": ("positions[i] < stop", "positions[i] <= stop", RULES[-1]),
    "off-by-one bound of the rows": ("for (int i = 0; i < rows; i++)", "for (int i = 0; i < rows - 1; i++)", RULES[0]),
    "swapped tie rule": ("other == score && j < i", "other == score && j > i", RULES[6]),
    "last of equal rows": (
        "metal::min(best_inside, i)",
        "best_inside == nowhere ? i : metal::max(best_inside, i)",
        RULES[7],
    ),
    "strict threshold": ("score >= level", "score > level", RULES[0]),
    "forced progress in the wrong block": ("== 2 && table[b * 6 + 2] > 0", ">= 1 && table[b * 6 + 2] > 0", RULES[-1]),
    "an end that cuts one late": ("positions[i] + 1", "positions[i] + 2", RULES[1]),
    "activation by its own progress": ("int before = b - 1;", "int before = b;", RULES[0]),
    "one block too many": ("table[before * 6 + 3] > 0 && left", "left", RULES[2]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_defects_are_caught(name: str, emulator: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, rule = MUTANTS[name]
    wrong = mutant(module.kernel(rule.kind, rule.inclusive), old, new)
    monkeypatch.setattr(module, "kernel", lambda *_: wrong)

    def attempts() -> None:
        for seed in range(12):
            with emulator(Emulation(seed=seed)):
                check(Case(seed, [9, 9, 9, 9], 3), rule)
                check(Case(seed, [1, 2, 2, 9], 4), rule)
                check(Case(seed, [4] * 8, 2), rule)
                check(Case(seed, [700, 9], 2, all_masked=True), rule)

    assert_caught(attempts)


def test_one_launch_and_one_small_array(emulator: Executor) -> None:
    case = Case(1, [32] * 8, 3)
    with emulated() as records:
        packed = accept_blocks(case.stats, case.positions, case.table, RULES[0], ENDS)
        mx.eval(packed)
    assert len(records) == 1
    assert packed.nbytes == 4 * (3 * len(case.positions) + 2 * len(case.table))
