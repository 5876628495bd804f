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
from d3mlx.kernels.refresh_rows import Rotary, reference, refresh_rows
from tests.kernels.conftest import Executor
from tests.kernels.mutants import assert_caught, mutant
from tests.metal import Emulation, emulated

DTYPES = {mx.float32: 2e-6, mx.float16: 1.5e-3, mx.bfloat16: 1.2e-2}
"""Largest error of a correct element around 1: the rounding of the dtype, and a little more."""
SCHEDULES = [Emulation(seed=1), Emulation(seed=2), Emulation(seed=3), Emulation(seed=4, preempt=7)]
SHAPES = [(1, 1, 1, 1, 2), (1, 2, 1, 1, 64), (2, 2, 1, 3, 6), (1, 4, 2, 33, 32), (2, 6, 2, 9, 128)]
"""Batch, heads, kv_heads, rows, width."""

Array = npt.NDArray[Any]
Parts = tuple[mx.array, mx.array, mx.array, npt.NDArray[np.int32]]


def parts(shape: tuple[int, ...], dtype: mx.Dtype, seed: int = 0, furthest: int = 131072) -> Parts:
    """Return queries, keys and values with the strides of projections, and positions int32 [R] in random order."""
    batch, heads, kv_heads, rows, width = shape
    rng = np.random.default_rng(seed)

    def projected(count: int) -> mx.array:
        x = rng.uniform(-1, 1, size=(batch, rows, count, width)).astype(np.float32)
        return mx.array(x).astype(dtype).transpose(0, 2, 1, 3)

    positions = rng.choice(furthest, size=rows, replace=False).astype(np.int32)
    return projected(heads), projected(kv_heads), projected(kv_heads), positions


def strided(dtype: mx.Dtype) -> Parts:
    """Return parts in which every array has strides of its own, and widths have gaps."""
    queries, keys, values, positions = parts((2, 4, 2, 5, 32), dtype)
    values = mx.contiguous(mx.repeat(values, 2, axis=2))[:, :, ::2]
    return queries[..., ::2], mx.contiguous(keys)[..., ::2], values[..., 1::2], positions


def float64(x: mx.array) -> Array:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def turned(x: mx.array, positions: npt.NDArray[np.int32], rope: Any) -> Array:
    """Return `x` rotated by RoPE in float64. The numbers of a head beyond `rope.dims` stay as they are."""
    half = rope.dims // 2
    frequencies = rope.scale * float(rope.base) ** (-np.arange(half) / half)
    angles = positions.astype(np.float64)[:, None] * frequencies
    first, second, rest = np.split(float64(x), [half, 2 * half], axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos, rest], axis=-1)


def refreshed(given: Parts, rope: Any) -> tuple[mx.array, mx.array]:
    return refresh_rows(*given[:3], Rotary(rope).at(given[3]))


def check(result: tuple[mx.array, mx.array], given: Parts, rope: Any, tolerance: float) -> None:
    queries, keys, values, positions = given
    for x, out in ((queries, result[0]), (keys, result[1][0])):
        assert (out.dtype, out.shape) == (x.dtype, x.shape)
        np.testing.assert_allclose(float64(out), turned(x, positions, rope), rtol=0, atol=tolerance)
    np.testing.assert_array_equal(float64(result[1][1]), float64(values))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_at_any_position(executor: Executor, shape: tuple[int, ...], dtype: mx.Dtype) -> None:
    rope = nn.RoPE(shape[-1], base=500000.0, scale=1.0)
    given = parts(shape, dtype, seed=sum(shape))
    for emulation in SCHEDULES:
        with executor(emulation):
            check(refreshed(given, rope), given, rope, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inputs_of_any_strides(executor: Executor, dtype: mx.Dtype) -> None:
    given, rope = strided(dtype), nn.RoPE(16, base=10000.0)
    with executor(Emulation(seed=1)):
        check(refreshed(given, rope), given, rope, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inexact_arithmetic(emulator: Executor, dtype: mx.Dtype) -> None:
    rope = nn.RoPE(64, base=1e6)
    given = parts((1, 2, 1, 5, 64), dtype)
    with emulator(Emulation(seed=1, ulp_noise=4)):
        check(refreshed(given, rope), given, rope, DTYPES[dtype] + 2e-6)


@pytest.mark.parametrize("furthest", [3, 100, 4096, 131072])
def test_the_error_does_not_grow_with_the_position(executor: Executor, furthest: int) -> None:
    """The angles are computed in float64, those of stock RoPE in float32, whose error grows with the position."""
    rope = nn.RoPE(128, base=10000.0)
    given = parts((1, 2, 2, 3, 128), mx.float32, furthest, furthest)
    true = turned(given[0], given[3], rope)
    with executor(Emulation(seed=1)):
        result = refreshed(given, rope)
    for queries, _ in (result, reference(*given[:3], Rotary(rope).at(given[3]))):
        assert np.abs(float64(queries) - true).max() <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_part_of_a_head_may_be_rotated(executor: Executor, dtype: mx.Dtype) -> None:
    rope, given = nn.RoPE(8, base=10000.0), parts((2, 4, 2, 5, 32), dtype)
    with executor(Emulation(seed=1)):
        check(refreshed(given, rope), given, rope, DTYPES[dtype])
    check(reference(*given[:3], Rotary(rope).at(given[3])), given, rope, DTYPES[dtype])


SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear", "factor": 4.0},
    "llama3": {"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32},
    "yarn": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rotations_equal_those_of_mlx_lm(executor: Executor, scaling: str) -> None:
    """Every kind of `rope_scaling` is rotated by the kernel as mlx-lm's class rotates it."""
    rope = initialize_rope(16, 1e4, False, SCALINGS[scaling])
    given = parts((1, 2, 1, 4, 16), mx.float32, furthest=100)
    with executor(Emulation(seed=1)):
        queries, rows = refreshed(given, rope)
    for i, position in enumerate(given[3].tolist()):
        for x, out in ((given[0], queries), (given[1], rows[0])):
            assert mx.allclose(out[:, :, i], rope(x[:, :, i : i + 1], offset=position)[:, :, 0], atol=2e-5)


def test_a_table_grows_with_the_positions() -> None:
    rotary = Rotary(nn.RoPE(8))
    for furthest, length in ((5, 1024), (1023, 1024), (1024, 2048), (3, 2048)):
        rotary.at(np.array([0, furthest], np.int32))
        assert rotary.table.shape == (length, 2, 4)


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
        check(refreshed(given, rope), given, rope, DTYPES[dtype])
    check(reference(*given[:3], Rotary(rope).at(given[3])), given, rope, DTYPES[dtype])


def test_rows_are_read_once(emulator: Executor) -> None:
    given = parts((1, 8, 2, 16, 128), mx.bfloat16)
    with emulated() as records:
        refreshed(given, nn.RoPE(128))
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
    whole = mx.random.normal((2, 1, 4, length, 64))
    mx.eval(layer.attend(whole[0, :, :, :1], whole, 1.0), layer.arrays)
    del whole
    layer.rows = RowIndex(positions.astype(np.int32), length)

    def growth() -> int:
        rows = mx.random.normal((2, 1, 4, count, 64))
        mx.eval(rows)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        layer.write([rows])
        mx.eval(layer.arrays)
        (stored,) = layer.arrays
        assert mx.array_equal(stored[:, :, :, mx.array(positions)], rows)
        return max(mx.get_peak_memory(), mx.get_active_memory()) - before

    row_bytes, cache_bytes = 2 * 4 * count * 64 * 4, 2 * 4 * length * 64 * 4
    assert growth() <= 8 * row_bytes < cache_bytes
    view = layer.arrays[0][:1]
    mx.eval(view)
    assert growth() >= cache_bytes, "an array with another reference must be copied, and the measurement shows it"
    assert view.shape == (1, 1, 4, length, 64)


MUTANTS = {
    "row written one position off": ("* rows + row) * 2", "* rows + (row + 1) % rows) * 2"),
    "row index instead of its position": ("size_t(positions[row])", "size_t(row)"),
    "off-by-one bound": ("uint rows = uint(queries_shape[2]);", "uint rows = uint(queries_shape[2]) + 1;"),
    "neighbors paired": ("pair < turned ? pair + turned", "pair < turned ? 2 * pair + 1"),
    "strides ignored": ("row * keys_strides[2]", "row * keys_strides[1]"),
    "strides of keys for values": ("row * values_strides[2]", "row * keys_strides[2]"),
    "values without gaps": ("second * values_strides[3]", "second"),
    "keys in the queries' place": ("    head -= heads;\n", ""),
    "values in the keys' place": ("(size_t(batches) + batch) * kv_heads", "size_t(batch) * kv_heads"),
    "sine and cosine exchanged": ("c = table[angle];", "c = table[angle + turned];"),
    "the rest of a head rotated": ("if (pair < turned && head", "if (head"),
    "the rest of a head twice": (": 2 * pair + 1;", ": 2 * pair;"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(emulator: Executor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "KERNEL", mutant(kernels.KERNEL, *MUTANTS[name]))
    given = parts((1, 4, 2, 5, 16), mx.float32)

    def run() -> None:
        with emulator(Emulation(seed=1)):
            for inputs, rope in ((given, nn.RoPE(16)), (strided(mx.float32), nn.RoPE(16)), (given, nn.RoPE(6))):
                check(refreshed(inputs, rope), inputs, rope, DTYPES[mx.float32])

    assert_caught(run)
