"""The refresh kernel, compared with float64 NumPy at any position, and the cost of a write into a cache."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.rope_utils import initialize_rope

from d3mlx.cache import CachedLayer, RowIndex
from d3mlx.kernels import refresh_rows as kernels
from d3mlx.kernels.refresh_rows import reference, refresh_rows, served
from tests.kernels.conftest import Executor
from tests.kernels.mutants import assert_caught, mutant
from tests.metal import Emulation, emulated

DTYPES = {mx.float32: 2e-6, mx.float16: 1.5e-3, mx.bfloat16: 1.2e-2}
"""Largest error of a correct element around 1: the rounding of the dtype, and a little more."""
SCHEDULES = [Emulation(seed=1), Emulation(seed=2), Emulation(seed=3), Emulation(seed=4, preempt=7)]
SHAPES = [(1, 1, 1, 1, 2), (1, 2, 1, 1, 64), (2, 2, 1, 3, 6), (1, 4, 2, 33, 32), (2, 6, 2, 9, 128)]
"""Batch, heads, kv_heads, rows, width."""

Array = npt.NDArray[Any]
Parts = tuple[mx.array, mx.array, mx.array, mx.array]


def parts(shape: tuple[int, ...], dtype: mx.Dtype, seed: int = 0, furthest: int = 131072) -> Parts:
    """Return queries, keys and values with the strides of projections, and positions int32 [R] in random order."""
    batch, heads, kv_heads, rows, width = shape
    rng = np.random.default_rng(seed)

    def projected(count: int) -> mx.array:
        x = rng.uniform(-1, 1, size=(batch, rows, count, width)).astype(np.float32)
        return mx.array(x).astype(dtype).transpose(0, 2, 1, 3)

    positions = rng.choice(furthest, size=rows, replace=False).astype(np.int32)
    return projected(heads), projected(kv_heads), projected(kv_heads), mx.array(positions)


def strided(dtype: mx.Dtype) -> Parts:
    """Return parts in which every array has strides of its own, and positions and widths have gaps."""
    queries, keys, values, positions = parts((1, 4, 2, 5, 32), dtype)
    every_second = mx.stack([positions, positions * 0 + 7], axis=1)[:, 0]
    values = mx.contiguous(mx.repeat(values, 2, axis=2))[:, :, ::2]
    return queries[..., ::2], mx.contiguous(keys)[..., ::2], values[..., 1::2], every_second


def float64(x: mx.array) -> Array:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def turned(x: mx.array, positions: mx.array, rope: Any) -> Array:
    """Return `x` rotated by RoPE in float64."""
    half = x.shape[-1] // 2
    frequencies = rope.scale * float(rope.base) ** (-np.arange(half) / half)
    angles = np.array(positions).astype(np.float64)[:, None] * frequencies
    first, second = float64(x)[..., :half], float64(x)[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def check(result: tuple[mx.array, ...], given: Parts, rope: Any, tolerance: float) -> None:
    queries, keys, values, positions = given
    for x, out in ((queries, result[0]), (keys, result[1])):
        assert (out.dtype, out.shape) == (x.dtype, x.shape)
        np.testing.assert_allclose(float64(out), turned(x, positions, rope), rtol=0, atol=tolerance)
    np.testing.assert_array_equal(float64(result[2]), float64(values))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_at_any_position(executor: Executor, shape: tuple[int, ...], dtype: mx.Dtype) -> None:
    rope = nn.RoPE(shape[-1], base=500000.0, scale=1.0)
    given = parts(shape, dtype, seed=sum(shape))
    for emulation in SCHEDULES:
        with executor(emulation):
            check(refresh_rows(*given, rope), given, rope, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inputs_of_any_strides(executor: Executor, dtype: mx.Dtype) -> None:
    given, rope = strided(dtype), nn.RoPE(16, base=10000.0)
    with executor(Emulation(seed=1)):
        check(refresh_rows(*given, rope), given, rope, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inexact_arithmetic(emulator: Executor, dtype: mx.Dtype) -> None:
    rope = nn.RoPE(64, base=1e6)
    given = parts((1, 2, 1, 5, 64), dtype)
    with emulator(Emulation(seed=1, ulp_noise=4)):
        check(refresh_rows(*given, rope), given, rope, DTYPES[dtype] + 2e-6)


@pytest.mark.parametrize("furthest", [3, 100, 4096, 131072])
def test_the_error_is_at_most_that_of_stock_rope(executor: Executor, furthest: int) -> None:
    """The error of a float32 angle grows with the position; the error of the kernel does not."""
    rope = nn.RoPE(128, base=10000.0)
    given = parts((1, 2, 2, 3, 128), mx.float32, furthest, furthest)
    with executor(Emulation(seed=1)):
        result = refresh_rows(*given, rope)
    true = turned(given[0], given[3], rope)
    error = np.abs(float64(result[0]) - true).max()
    assert error <= max(np.abs(float64(reference(*given, rope)[0]) - true).max(), 4e-7)
    assert error <= 1e-6


def test_the_kernel_replaces_only_plain_ropes() -> None:
    """For other classes of RoPE, mlx-lm's own code runs."""
    llama3 = {"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32}
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    linear = initialize_rope(16, 1e4, False, {"type": "linear", "factor": 4.0})
    others = [initialize_rope(16, 1e4, False, scaling) for scaling in (llama3, yarn)]
    others += [nn.RoPE(16, traditional=True), nn.RoPE(8)]
    assert served(linear, 16)
    given = parts((1, 2, 1, 4, 16), mx.float32, furthest=100)
    with emulated(Emulation(seed=1)) as records:
        check(refresh_rows(*given, linear), given, linear, DTYPES[mx.float32])
        assert len(records) == 1
        for rope in others:
            result, expected = refresh_rows(*given, rope), reference(*given, rope)
            assert all(mx.array_equal(x, y) for x, y in zip(result, expected, strict=True))
        assert len(records) == 1


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 20)),
    dtype=st.sampled_from(list(DTYPES)),
    seed=st.integers(0, 1000),
)
def test_kernel_reference_and_numpy_agree(shape: tuple[int, ...], dtype: mx.Dtype, seed: int) -> None:
    batch, groups, kv_heads, rows, half = shape
    rope = nn.RoPE(2 * half, base=10000.0)
    given = parts((batch, groups * kv_heads, kv_heads, rows, 2 * half), dtype, seed, furthest=16)
    with emulated(Emulation(seed=seed)):
        check(refresh_rows(*given, rope), given, rope, DTYPES[dtype])
    check(reference(*given, rope), given, rope, DTYPES[dtype] + 5e-6)


def test_rows_are_read_once(emulator: Executor) -> None:
    given = parts((1, 8, 2, 16, 128), mx.bfloat16)
    with emulated() as records:
        refresh_rows(*given, nn.RoPE(128))
    traffic = records[0].traffic
    for name, x in zip(("queries", "keys", "values"), given, strict=False):
        assert traffic[name].read == x.nbytes
    assert sum(buffer.written for buffer in traffic.values()) == sum(x.nbytes for x in given[:3])


@pytest.mark.parametrize("scattered", [False, True])
def test_a_refresh_moves_rows_and_not_the_cache(scattered: bool) -> None:
    """Peak memory of an update is that of its rows, because the written arrays have no other reference."""
    length, count, rng = 4096, 32, np.random.default_rng(0)
    positions = np.sort(rng.permutation(length)[:count]) if scattered else np.arange(100, 100 + count)
    layer = CachedLayer()
    layer.rows = RowIndex(np.arange(length, dtype=np.int32), length)
    whole = mx.random.normal((1, length, 4, 64)).transpose(0, 2, 1, 3)
    mx.eval(layer.attend(whole[:, :, :1], whole, whole + 1, 1.0), layer.arrays)
    del whole
    layer.rows = RowIndex(positions.astype(np.int32), length)

    def growth() -> int:
        rows = mx.random.normal((1, 4, count, 64))
        mx.eval(rows)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        layer.write([rows, rows])
        mx.eval(layer.arrays)
        for array in layer.arrays:
            assert mx.array_equal(array[:, :, mx.array(positions)], rows)
        return max(mx.get_peak_memory(), mx.get_active_memory()) - before

    row_bytes, cache_bytes = 4 * count * 64 * 4, 4 * length * 64 * 4
    # The first write of scattered rows copies the array, because projections leave it not contiguous.
    growth()
    assert growth() <= 8 * row_bytes < cache_bytes
    view = layer.arrays[0][:, :1]
    mx.eval(view)
    assert growth() >= cache_bytes, "an array with another reference must be copied, and the measurement shows it"
    assert view.shape == (1, 1, length, 64)


MUTANTS = {
    "row written one position off": ("* rows + row) * 2", "* rows + (row + 1) % rows) * 2"),
    "row index instead of its position": ("float(positions[row * positions_strides[0]])", "float(row)"),
    "off-by-one bound": ("uint rows = uint(queries_shape[2]);", "uint rows = uint(queries_shape[2]) + 1;"),
    "neighbors paired": ("half_width * queries_strides[3]", "queries_strides[3]"),
    "strides ignored": ("row * keys_strides[2]", "row * keys_strides[1]"),
    "strides of positions ignored": ("positions[row * positions_strides[0]]", "positions[row]"),
    "strides of keys for values": ("row * values_strides[2]", "row * keys_strides[2]"),
    "values without gaps": ("half_width * values_strides[3]", "half_width"),
    "keys in the queries' place": ("    head -= heads;\n", ""),
    "angle of a single float": (" + (rest - turns * TWO_PI_LOW)", " - turns * TWO_PI_LOW"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(emulator: Executor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "KERNEL", mutant(kernels.KERNEL, *MUTANTS[name]))
    rope = nn.RoPE(16, base=10000.0)
    given = parts((1, 4, 2, 5, 16), mx.float32)

    def run() -> None:
        with emulator(Emulation(seed=1)):
            for inputs in (given, strided(mx.float32)):
                check(refresh_rows(*inputs, rope), inputs, rope, DTYPES[mx.float32])

    assert_caught(run)
