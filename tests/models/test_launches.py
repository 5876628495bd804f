"""Launches of a layer on a GPU, counted in an export on a machine without one.

On a GPU, RMSNorm, attention and a compiled function are one launch each. An export on a CPU contains their parts
instead, so a substitute of the same name replaces each of them, and a kernel of the package is recorded as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import activations

from d3mlx import engine
from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.cache import RowIndex
from d3mlx.canvas import Canvas
from d3mlx.decoding.schedule import ActiveBlocks
from d3mlx.decoding.selective import Selective
from d3mlx.kernels import dispatch
from d3mlx.models import transformer
from d3mlx.request import Request

VIEWS = {"Broadcast", "ExpandDims", "Flatten", "Slice", "Split", "Squeeze", "Transpose", "Unflatten", "Depends"}
"""Primitives that only describe an array in another way."""

LENGTH, CAPACITY = 300, 512
Event = dict[str, Any]


def substitute(name: str) -> Any:
    """Return a function that records one launch with this name; its output is like its first input."""

    def launch(x: mx.array, *others: Any, **_: Any) -> mx.array:
        arrays = [x, *(other for other in others if isinstance(other, mx.array))]
        names = [f"input{i}" for i in range(len(arrays))]
        kernel: Any = mx.fast.metal_kernel(name=name, input_names=names, output_names=["out"], source="out[0] = 0;")
        size = {"grid": (1, 1, 1), "threadgroup": (1, 1, 1), "output_shapes": [x.shape], "output_dtypes": [x.dtype]}
        (out,) = kernel(inputs=arrays, stream=mx.gpu, **size)
        return out

    return launch


class WithoutGradients:
    """In place of `mx.custom_function`, which MLX cannot export. A function's own gradient adds no launch to it."""

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, *inputs: mx.array) -> Any:
        return self.function(*inputs)

    def vjp(self, gradients: Any) -> None:
        """Ignore the gradients."""


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the paths of a GPU inside the block."""

    def run(kernel: dispatch.Kernel, launch: dispatch.Launch) -> Any:
        return dispatch.compiled(kernel)(**vars(launch), stream=mx.gpu)

    with (
        patch.object(dispatch, "on_gpu", lambda: True),
        patch.object(dispatch, "run", run),
        patch.object(transformer, "on_cpu", lambda x: False),
        patch.object(transformer, "on_any_gpu", lambda: True),
        patch.object(mx, "custom_function", WithoutGradients),
        patch.object(mx.fast, "rms_norm", substitute("RMSNorm")),
        patch.object(mx.fast, "scaled_dot_product_attention", substitute("attention")),
        patch.object(activations, "swiglu", substitute("swiglu")),
    ):
        yield


def request_of(model: Any) -> Request:
    """Return a request after its first forward, whose cache has room for more."""
    canvas = Canvas.for_prompt([1] * (LENGTH - 40), 40, 63)
    request = Request(model, canvas, Selective().build("llada"))
    canvas.extend(LENGTH)
    request.rows = RowIndex(np.arange(LENGTH, dtype=np.int32), LENGTH)
    shape = model.args.shape()
    engine.forward(model, [request])
    for layer in request.cache.layers:
        layer.arrays = [mx.zeros((2, 1, shape.kv_heads, CAPACITY, shape.head_dim), mx.float16)]  # type: ignore[attr-defined]
    request.cache.hidden = mx.zeros((1, CAPACITY, shape.hidden), mx.float16)
    mx.eval(request.cache.hidden, [layer.arrays for layer in request.cache.layers])  # type: ignore[attr-defined]
    return request


def launches(function: Any, *inputs: mx.array) -> list[str]:
    """Return the launches of a function, in order."""
    mx.eval(inputs)
    events = list[Event]()
    with as_on_a_gpu():
        mx.export_function(events.append, function, *inputs)
    made_by = {output[0]: event["name"] for event in events for output in event.get("outputs", []) if "name" in event}
    return [name for event in events if (name := launch_of(event, made_by))]


def launch_of(event: Event, made_by: dict[str, str]) -> str:
    """Return the name of the launch that a primitive is, "" for none. made_by: the primitive of each array's name."""
    if event["type"] != "primitive" or event["name"] in VIEWS:
        return ""
    if event["name"] == "CustomKernel":
        return re.split(r"_+(?:1|b?float|u?int)", event["arguments"][0].removeprefix("custom_kernel_"))[0]
    if event["name"] == "Reshape":
        # Only the heads of attention's result must be copied; other reshapes are views.
        return "Reshape" if made_by.get(event["inputs"][0][0]) == "Transpose" else ""
    return str(event["name"])


def made(family: str, bits: int | None) -> Any:
    model: Any = random_model(Sizes(family, layers=1, hidden=64, heads=4, kv_heads=2, ff=128, vocab=64))
    if bits:
        nn.quantize(model, 32, bits)
    model.set_dtype(mx.float16)
    for layer in model.layers:
        layer.join()
    mx.eval(model.parameters())
    return model


def expected(product: str, projections: list[str], norms: list[str], write: str) -> list[str]:
    attention = ["RMSNorm", *projections, *norms, "refresh_rows", write, "attention", "Reshape", product, "Add"]
    return [*attention, "RMSNorm", product, "swiglu", product, "Add"]


CASES = {
    "llada": ("llada", None, ["Matmul"], 13),
    "llada, quantized": ("llada", 4, ["QuantizedMatmul"], 13),
    "dream": ("dream", None, ["AddMM"], 13),
    "dream, quantized": ("dream", 4, ["QuantizedMatmul", "Add"], 14),
    "sdar": ("sdar", None, ["Matmul"], 15),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("positions", [[3, 9, 50, 51, 100], [5, 6, 7, 8]], ids=["scattered", "consecutive"])
def test_launches_of_a_layer(case: str, positions: list[int]) -> None:
    family, bits, projections, count = CASES[case]
    model = made(family, bits)
    rows = RowIndex(np.array(positions, np.int32), LENGTH)
    (layer,) = request_of(model).cache.open(rows, np.zeros(rows.count, np.int32))
    rotation = model.model.rotary.at(rows.positions)
    x = mx.zeros((1, rows.count, 64), mx.float16)
    found = launches(lambda x: model.layers[0](x, rotation, layer), x)
    write = "ScatterAxis" if positions[0] == 3 else "SliceUpdate"
    norms = ["RMSNorm", "RMSNorm"] if family == "sdar" else []
    assert found == expected("QuantizedMatmul" if bits else "Matmul", projections, norms, write)
    assert len(found) == count


def test_launches_of_a_step_outside_its_layers() -> None:
    """The step fills no constants: its inputs are copies of host arrays."""
    model = made("llada", None)
    request = request_of(model)
    request.active, request.kind = ActiveBlocks.of(request.table), "step"
    request.eligible = request.canvas.masked_before(request.active.end)
    request.rows = RowIndex(np.concatenate([[5], request.eligible]).astype(np.int32), LENGTH)

    def act(unused: mx.array) -> mx.array:
        hidden = engine.forward(model, [request])
        logits = engine.eligible_logits(model, [request])
        return mx.depends(engine.accepted(logits, None, [request]), hidden)[0]

    layer = expected("Matmul", ["Matmul"], [], "ScatterAxis")
    found = launches(act, mx.zeros(1))
    start = next(i for i in range(len(found)) if found[i : i + len(layer)] == layer)
    outside = found[:start] + found[start + len(layer) :]
    decision = ["Gather", "Matmul", "token_stats_likeliest", "accept_entropy"]
    assert outside == ["Gather", "RMSNorm", "ScatterAxis", *decision]
