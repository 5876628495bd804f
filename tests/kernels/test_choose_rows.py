"""The kernel that chooses a step's rows: against a plain sort, against its reference, and against planted defects."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.kernels import choose_rows as module
from d3mlx.kernels.choose_rows import choose_rows, reference
from tests.kernels.conftest import Executor
from tests.kernels.mutants import assert_caught, mutant
from tests.metal import Emulation, emulated
from tests.metal.requirements import require_compiler

Array = npt.NDArray[Any]
SCHEDULES = [Emulation(seed=1), Emulation(seed=2), Emulation(seed=3), Emulation(seed=4, preempt=7)]
SHAPES = [(1, 1), (7, 3), (31, 31), (33, 8), (512, 64), (700, 96), (1500, 1500)]
"""Positions, and rows to choose."""


def case(length: int, count: int, seed: int, share: float = 0.5) -> tuple[Array, Array]:
    """Needed positions, at most `count`, and the ages of all; many ages are equal."""
    rng = np.random.default_rng(seed)
    needed = np.zeros(length, np.uint8)
    needed[rng.permutation(length)[: int(share * count)]] = 1
    return needed, rng.integers(0, 5, length).astype(np.int32)


def truth(needed: Array, written: Array, count: int) -> list[int]:
    order = sorted(range(len(needed)), key=lambda p: (not needed[p], written[p] if not needed[p] else 0, p))
    return sorted(order[:count])


def check(needed: Array, written: Array, count: int) -> None:
    found = choose_rows(mx.array(needed), mx.array(written), count, 4)
    assert found.dtype == mx.int32
    assert np.array(found).tolist() == truth(needed, written, count)


@pytest.mark.parametrize(("length", "count"), SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_kernel_chooses_the_needed_and_the_oldest(executor: Executor, length: int, count: int, share: float) -> None:
    for seed, schedule in enumerate(SCHEDULES):
        with executor(schedule):
            check(*case(length, count, seed, share), count)


def test_under_arithmetic_noise_and_the_strict_lint(emulator: Executor) -> None:
    with emulator(Emulation(seed=5, ulp_noise=4, strict=True)):
        check(*case(600, 40, 1), 40)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 90), seed=st.integers(0, 10**6), data=st.data())
def test_kernel_reference_and_a_sort_agree(length: int, seed: int, data: st.DataObject) -> None:
    require_compiler()
    count = data.draw(st.integers(1, length))
    needed, written = case(length, count, seed, data.draw(st.floats(0, 1)))
    with emulated(Emulation(seed=seed % 97)) as records:
        check(needed, written, count)
    assert len(records) == 1
    assert np.array(reference(mx.array(needed), mx.array(written), count)).tolist() == truth(needed, written, count)


WAIT = "  threadgroup_barrier(mem_flags::mem_threadgroup);\n"
STORE = """  if (lane == 0) {
    part[group] = value;
  }
"""
MUTANTS = {
    "wrong reduction identity": ("part[lane] : 0", "part[lane] : 1"),
    "missing barrier": (f"{STORE}{WAIT}", STORE),
    "stale slot reused without a barrier": (f"{WAIT}{STORE}", STORE),
    "off-by-one bound": ("metal::min(first + each, length)", "metal::min(first + each, length - 1)"),
    "one row of padding short": ("metal::clamp(left - earlier", "metal::clamp(left - earlier - 1"),
    "swapped tie rule": ("metal::clamp(left - earlier, 0, equal)", "equal - metal::clamp(left - earlier, 0, equal)"),
    "the age itself is older": ("written[p] < low ? 1 : 0", "written[p] <= low ? 1 : 0"),
    "a row written one position off": ("positions[place] = p;", "positions[place] = p + 1;"),
    "needed rows count as padding": ("needed[p] == 0 && written[p] <= middle", "written[p] <= middle"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_defects_are_caught(name: str, emulator: Executor) -> None:
    def attempts() -> None:
        for seed in range(6):
            for length, count in ((33, 8), (700, 96), (700, 600)):
                with emulator(Emulation(seed=seed)):
                    check(*case(length, count, seed), count)

    with patch.object(module, "KERNEL", mutant(module.KERNEL, *MUTANTS[name])):
        assert_caught(attempts)
