"""The emulator finds every planted defect with its line. Correct kernels give the results of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from tests.metal import CompileError, Emulation, KernelError
from tests.metal.small import THREADS, run

ARRAY = "threadgroup float s[64]; "
SHARED = ARRAY + "s[l] = x[i]; "
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup); "

DEFECTS = {
    "read past the end": ("out[i] = x[i + 1];", r"out-of-bounds read of 4 bytes: x\[64\], size 64"),
    "read before the start": ("out[i] = x[int(i) - 1];", r"out-of-bounds read of 4 bytes: x\[-1\]"),
    "write past the end": ("out[i] = x[i]; out[i + 1] = x[i];", r"out-of-bounds write|data race"),
    "read far away": ("out[i] = x[i * 100000];", r"out-of-bounds read"),
    "write to an input": ("((device float*)x)[i] = 1.0f; out[i] = 1.0f;", r"write to an input"),
    "threadgroup array overrun": (
        "threadgroup float s[32]; threadgroup float* p = s; p[l % 33] = x[i]; out[i] = 0;",
        r"out-of-bounds write of 4 bytes: threadgroup s at byte 128 of 128|data race",
    ),
    "private array overrun": ("float a[4] = {1, 2, 3, 4}; out[i] = a[i & 7];", r"out of bounds of a fixed-size array"),
    "no barrier": (SHARED + "out[i] = s[63 - l];", r"uninitialized memory: threadgroup s|data race \(read after write"),
    "lockstep assumed": (ARRAY + "s[l] = 0; " + BARRIER + "s[l] = x[i]; out[i] = s[l ^ 1];", "data race"),
    "barrier without a flag": (SHARED + "threadgroup_barrier(mem_flags::mem_none); out[i] = s[63 - l];", "data race"),
    "barrier of the wrong memory": (
        SHARED + "threadgroup_barrier(mem_flags::mem_device); out[i] = s[63 - l];",
        "data race",
    ),
    "slot reused without a barrier": (
        "threadgroup float s[64]; for (int k = 0; k < 3; k++) { s[l] = x[i] + k; " + BARRIER + "out[i] = s[63 - l]; }",
        "data race",
    ),
    "barrier in a branch": (SHARED + "if (l < 48) { " + BARRIER + "} out[i] = 0;", r"not reached by all|diverged"),
    "return before a barrier": (
        "out[i] = 1; if (l > 40) return; " + BARRIER,
        "threadgroup_barrier not reached by all threads",
    ),
    "two different barriers": (
        "if (l < 32) {\n" + BARRIER + "\n} else {\n" + BARRIER + "\n} out[i] = 0;",
        "divergent threadgroup_barrier",
    ),
    "SIMD function in a branch": (
        "float v = x[i];\nif (lane < 16) {\nv = simd_sum(v);\n}\n" + BARRIER + "out[i] = v;",
        r"SIMD-group \d diverged at a SIMD-group function",
    ),
    "shuffle by different deltas": ("out[i] = simd_shuffle_down(x[i], ushort(lane & 1));", "differs between lanes"),
    "two writers": ("out[i / 2] = x[i];", r"data race \(write after write, different values\)"),
    "accumulation without atomics": (
        "out[i] = 0; threadgroup_barrier(mem_flags::mem_device); out[0] += x[i];",
        "data race",
    ),
    "output not written": ("if (i < 60) out[i] = 1;", r"4 of 64 elements of the output out .* \(first: 60\)"),
    "output read before it is written": ("out[i] += x[i];", r"read of uninitialized memory: out\[\d+\]"),
    "integer division by zero": ("out[i] = 100 / (int(i) - 3);", "division by zero"),
    "float out of the range of int": ("out[i] = int(x[i] * 1e30f);", "float to integer"),
    "shift by the width": ("out[i] = 1 << int(i);", "shift"),
    "misaligned vector": ("out[i] = ((const device float4*)(x + 1))[0].y;", "misaligned"),
    "too much threadgroup memory": ("threadgroup float s[8193]; s[l] = 0; out[i] = 0;", "limit 32768"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found(defect: str) -> None:
    source, message = DEFECTS[defect]
    for seed in range(3):
        with pytest.raises(KernelError, match=message):
            run(source, Emulation(seed=seed))


def test_message_names_line_and_thread() -> None:
    with pytest.raises(KernelError, match=r"at line \d+: out\[i\] = x\[i \+ 1\];\n  in thread \(63, 0, 0\)"):
        run("\nout[i] = x[i + 1];\n")


def test_threads_of_different_threadgroups_never_synchronize() -> None:
    source = "out[i] = x[i]; threadgroup_barrier(mem_flags::mem_device); out[i] = out[(i + 32) % 64] + 1;"
    with pytest.raises(KernelError, match="different threadgroups can never synchronize"):
        run(source, threadgroup=(32, 1, 1), init_value=0)


def test_shuffle_from_an_absent_lane() -> None:
    with pytest.raises(KernelError, match="lane 0 reads lane 16, which is not active"):
        run("out[i] = simd_shuffle_xor(x[i], 16);", grid=(48, 1, 1), threadgroup=(48, 1, 1), output_shapes=[(48,)])


def test_limits_of_a_launch() -> None:
    with pytest.raises(KernelError, match="greater than the maximum of 1024 threads"):
        run("out[i] = 1;", grid=(2048, 1, 1), threadgroup=(2048, 1, 1), output_shapes=[(2048,)])
    with pytest.raises(KernelError, match="timeout"):
        run("volatile thread uint a = 1; while (a) {} out[i] = 1;", Emulation(timeout=0.3))
    with pytest.raises(KernelError, match="stack overflow"):
        deep = "inline int deep(int n) { volatile int a[64]; a[n & 63] = n; return n ? deep(n - 1) + a[n & 63] : 0; }\n"
        run("out[i] = deep(int(i) + 100000);", header=deep)


def test_equal_values_from_two_threads() -> None:
    assert (run("out[i & 62] = 1; out[i | 1] = 1;") == 1).all()
    with pytest.raises(KernelError, match="write after write"):
        run("out[i & 62] = 1; out[i | 1] = 1;", Emulation(equal_writes_race=True))


def test_preemption_finds_a_lost_update() -> None:
    source = """uint v = atomic_load_explicit(&out[0], memory_order_relaxed);
        atomic_store_explicit(&out[0], v + 1, memory_order_relaxed);"""
    call: dict[str, Any] = {"output_shapes": [(1,)], "output_dtypes": [mx.uint32], "init_value": 0}
    assert run(source, atomic=True, **call)[0] == THREADS
    assert run(source, Emulation(seed=1, preempt=2), atomic=True, **call)[0] < THREADS


def test_order_of_threads_depends_on_the_seed() -> None:
    source = """uint k = atomic_fetch_add_explicit(&out[0], 1u, memory_order_relaxed);
        if (i == 5) atomic_store_explicit(&out[1], k, memory_order_relaxed);"""
    call: dict[str, Any] = {"output_shapes": [(2,)], "output_dtypes": [mx.uint32], "init_value": 0}
    assert len({tuple(run(source, Emulation(seed=seed), atomic=True, **call)) for seed in range(6)}) > 1


@pytest.mark.parametrize(
    "source",
    [
        "out[i] = max(x[i], 0);",
        "out[i] = simd_sum(long(i));",
        "out[i] = simd_max(x[i] > 1);",
        "half4 a = float4(1); out[i] = a.x;",
        "bfloat a = 1.0f; out[i] = a;",
        "double d = 1; out[i] = d;",
        "half h = 1.0h; out[i] = bfloat(1) * h;",
    ],
)
def test_types_that_metal_does_not_mix(source: str) -> None:
    with pytest.raises(CompileError):
        run(source)


Reference = Callable[[npt.NDArray[np.float32]], Any]
CORRECT: dict[str, tuple[str, Reference]] = {
    "exchange": (SHARED + BARRIER + "out[i] = s[63 - l];", lambda x: x[::-1]),
    "exchange in a loop": (
        "threadgroup float s[64]; float a = 0; for (int k = 0; k < 3; k++) { s[l] = x[i] + k; "
        + (BARRIER + "a += s[63 - l]; " + BARRIER + "} out[i] = a;"),
        lambda x: 3 * x[::-1] + 3,
    ),
    "exchange within a SIMD-group": (
        SHARED + "simdgroup_barrier(mem_flags::mem_threadgroup); out[i] = s[l ^ 1];",
        lambda x: x.reshape(-1, 2)[:, ::-1].ravel(),
    ),
    "sum and extremes": (
        "out[i] = simd_sum(x[i]) + simd_max(x[i]) - simd_min(x[i]);",
        lambda x: np.repeat(x.reshape(2, 32).sum(1), 32) + 31,
    ),
    "prefix sums": (
        "out[i] = simd_prefix_inclusive_sum(x[i]) + 2 * simd_prefix_exclusive_sum(x[i]);",
        lambda x: (3 * x.reshape(2, 32).cumsum(1) - 2 * x.reshape(2, 32)).ravel(),
    ),
    "shuffles": (
        "out[i] = simd_shuffle_down(x[i], 3) + simd_shuffle_xor(x[i], 5) + simd_broadcast(x[i], 7);",
        lambda x: (
            np.where(np.arange(64) % 32 < 29, x + 3, x) + x[np.arange(64) ^ 5] + np.repeat(x.reshape(2, 32)[:, 7], 32)
        ),
    ),
    "votes": (
        "ulong b = (simd_vote::vote_t)simd_ballot((i % 3) == 0); out[i] = popcount(b) + 100 * simd_any(i == 3);",
        lambda x: np.where(np.arange(64) < 32, 111, 11),
    ),
    "return before a SIMD function": (
        "out[i] = 0; if (i >= 50) return; out[i] = simd_sum(1.0f);",
        lambda x: np.where(np.arange(64) < 32, 32, np.where(np.arange(64) < 50, 18, 0)),
    ),
    "vectors and casts": (
        "float4 a = float4(x[i], 1, 2, 3); a.xy = a.yx; a.zw *= 2.0f; half4 h = half4(a); "
        "out[i] = dot(a, float4(1)) + float(h.w) + as_type<float>(as_type<uint>(x[i])) + select(1.0f, 2.0f, i > 3);",
        lambda x: 2 * x + 17 + np.where(np.arange(64) > 3, 2, 1),
    ),
    "atomics in threadgroup memory": (
        "threadgroup atomic_uint c; if (l == 0) atomic_store_explicit(&c, 0u, memory_order_relaxed); "
        + (BARRIER + "atomic_fetch_add_explicit(&c, uint(i), memory_order_relaxed); ")
        + (BARRIER + "out[i] = float(atomic_load_explicit(&c, memory_order_relaxed));"),
        lambda x: np.full(64, x.sum()),
    ),
    "literals are single precision": (
        "auto a = 0.1; out[i] = x[i] * 0.1 + (sizeof(a) == 4 ? 0.0 : 9.0);",
        lambda x: x * np.float32(0.1),
    ),
}


@pytest.mark.parametrize("what", CORRECT)
def test_correct_kernels(what: str) -> None:
    source, reference = CORRECT[what]
    expected = reference(np.arange(THREADS, dtype=np.float32))
    for emulation in (Emulation(), Emulation(seed=1), Emulation(seed=2, preempt=3)):
        np.testing.assert_allclose(run(source, emulation), expected, rtol=1e-6)


def test_threadgroups_at_the_edge_are_smaller() -> None:
    source = "out[i] = threads_per_threadgroup.x * 1000 + dispatch_threads_per_threadgroup.x;"
    values = run(source, grid=(100, 1, 1), output_shapes=[(100,)])
    assert (values[:64] == 64064).all()
    assert (values[64:] == 36064).all()
