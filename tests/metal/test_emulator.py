"""The emulator uses MLX's text, rewrites only what it must, counts traffic, and runs the package's kernels."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.kernels import dispatch
from tests.metal import Emulation, Record, emulate, emulated
from tests.metal.requirements import require
from tests.metal.rewrite import threadgroup_variables
from tests.metal.small import THREADS, generated, kernel, run
from tests.metal.trace import trace


def test_parameters_of_every_kind() -> None:
    """Shapes, strides and attributes are passed when their name occurs in the body; small inputs are constant."""
    made = mx.fast.metal_kernel(
        name="every",
        input_names=["x", "y", "s"],
        output_names=["o"],
        source="// x_shape x_strides x_ndim y_ndim s_shape thread_position_in_grid\no[0] = T(N);",
        atomic_outputs=True,
    )
    inputs = [mx.zeros(7), mx.zeros((2, 2, 2), mx.bfloat16), 1.5]
    generated_call = trace(
        made,
        inputs,
        output_shapes=[(1,)],
        output_dtypes=[mx.uint32],
        grid=(3, 2, 1),
        threadgroup=(4, 5, 6),
        template=[("T", mx.uint32), ("N", 3)],
    )
    kinds = [(p.name, p.kind, p.space, p.input) for p in generated_call.parameters]
    assert kinds == [
        ("x", "input", "constant", 0),
        ("x_shape", "shape", "constant", 0),
        ("x_strides", "strides", "constant", 0),
        ("x_ndim", "ndim", "constant", 0),
        ("y", "input", "device", 1),
        ("y_ndim", "ndim", "constant", 1),
        ("s", "input", "constant", 2),
        ("o", "output", "device", -1),
        ("thread_position_in_grid", "attribute", "", -1),
    ]
    assert generated_call.parameters[6].reference
    assert (generated_call.grid, generated_call.threadgroup) == ((3, 2, 1), (4, 5, 6))
    assert generated_call.instance == f"{generated_call.name}<uint32_t, 3>"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("threadgroup float a[32];", 'MSL_THREADGROUP(0, "a", a, float [32]);'),
        (
            "threadgroup float a[32], b;",
            'MSL_THREADGROUP(0, "a", a, float [32]); MSL_THREADGROUP(1, "b", b, float );',
        ),
        ("{ threadgroup vec<T, 4> a[N / 4][8]; }", '{ MSL_THREADGROUP(0, "a", a, vec<T, 4> [N / 4][8]); }'),
        ("threadgroup float* p = a;", "threadgroup float* p = a;"),
        ("threadgroup const float& p = a[0];", "threadgroup const float& p = a[0];"),
        ("f((threadgroup float*)p); // threadgroup float z;", "f((threadgroup float*)p); // threadgroup float z;"),
        ("threadgroup\nfloat\n a[2];\nint x;", 'MSL_THREADGROUP(0, "a", a, float [2])\n\n;\nint x;'),
    ],
)
def test_threadgroup_variables(source: str, expected: str) -> None:
    assert threadgroup_variables(source) == expected


def test_traffic_is_counted_per_buffer() -> None:
    records: list[Record] = []
    call: dict[str, Any] = {"grid": (THREADS, 1, 1), "threadgroup": (THREADS, 1, 1)}
    call |= {"output_shapes": [(THREADS,)], "output_dtypes": [mx.float16]}
    source = "threadgroup float s[64]; s[l] = x[i]; out[i] = half(x[63 - i] + s[l]);"
    emulate(kernel(source), None, records)(inputs=[mx.arange(THREADS, dtype=mx.float32)], **call)
    (record,) = records
    traffic = {name: (t.size, t.read, t.written) for name, t in record.traffic.items()}
    assert traffic == {"x": (256, 512, 0), "out": (128, 0, 128)}
    assert record.threadgroup_bytes == 256


def test_strided_inputs() -> None:
    """A kernel that needs no contiguous copies reads the original array."""
    made = mx.fast.metal_kernel(
        name="strided",
        input_names=["x"],
        output_names=["out"],
        source="""uint i = thread_position_in_grid.x;
            out[i] = x[i % x_shape[0] * x_strides[0] + i / x_shape[0] * x_strides[1]];""",
        ensure_row_contiguous=False,
    )
    x = mx.arange(40).reshape(5, 8)[1:4].T
    call: dict[str, Any] = {"grid": (24, 1, 1), "threadgroup": (24, 1, 1), "output_dtypes": [mx.int32]}
    (result,) = emulate(made)(inputs=[x], output_shapes=[(24,)], **call)
    assert np.array(result).tolist() == np.array(x.T).ravel().tolist()


def test_arithmetic_noise_changes_the_last_bits_only() -> None:
    source = "out[i] = exp(x[i] * 0.01f) * 3.0f + x[i];"
    exact, noisy = run(source), run(source, Emulation(ulp_noise=4))
    assert (exact != noisy).any()
    np.testing.assert_allclose(noisy, exact, rtol=2e-6)


DOUBLE = dispatch.Kernel("double", ("x",), ("out",), "uint i = thread_position_in_grid.x; out[i] = x[i] + x[i];")


def test_package_kernels_run_emulated() -> None:
    launch = dispatch.Launch([mx.arange(40)], (40, 1, 1), (32, 1, 1), [(40,)], [mx.int32])
    with emulated(Emulation(seed=1)) as records:
        assert dispatch.on_gpu()
        (result,) = dispatch.run(DOUBLE, launch)
    assert np.array(result).tolist() == [2 * i for i in range(40)]
    assert [record.kernel for record in records] == ["custom_kernel_double_int32_t_int32_t"]
    assert dispatch.on_gpu() == (mx.metal.is_available() and mx.default_device() == mx.gpu)


def test_missing_tools_skip_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"g\+\+ is missing"):
        require(False, "g++")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"g\+\+ is missing"):
        require(False, "g++")


def test_text_is_that_of_a_metal_launch() -> None:
    text = generated("out[i] = x[i];", size=4).text
    first, second, *_ = text.split("\n")
    assert first == "[[kernel]] void custom_kernel_small_floatc_float("
    assert second == "  const constant float* x [[buffer(0)]],"
