"""Execution of a kernel of `mx.fast.metal_kernel` on the CPU, thread by thread, with checks of its accesses."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from tests.metal import lint
from tests.metal.compile import CompileError, KernelError, build, compiler, line_of, load, runtime
from tests.metal.trace import Generated, Parameter, trace

THREADGROUP_BYTES = 32 * 1024


@dataclass(frozen=True)
class Emulation:
    """Settings of the emulator.

    seed: order of threads, threadgroups and reductions; 0 is first to last. preempt: mean number of memory accesses
    between two switches of threads, 0 to switch only at barriers. ulp_noise: error of transcendental functions, in
    units in the last place; above 0, products may be contracted. strict: text that Apple's compiler would refuse is an
    error. equal_writes_race: threads that store the same value without a barrier are an error. timeout: seconds of
    processor time for one launch.
    """

    seed: int = 0
    preempt: int = 0
    ulp_noise: int = 0
    strict: bool = False
    equal_writes_race: bool = False
    timeout: float = 60.0


@dataclass(frozen=True)
class Traffic:
    """One buffer of one launch: its bytes, and the bytes of all reads and writes of all threads."""

    size: int
    read: int
    written: int


@dataclass(frozen=True)
class Record:
    """One launch: the kernel's name, the traffic of its inputs and outputs, and the threadgroup memory it declares."""

    kernel: str
    traffic: dict[str, Traffic]
    threadgroup_bytes: int


class CBuffer(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("element_bytes", ctypes.c_uint32),
        ("is_output", ctypes.c_uint32),
        ("is_initialized", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("unwritten_first", ctypes.c_uint64),
        ("unwritten_count", ctypes.c_uint64),
        ("read_bytes", ctypes.c_uint64),
        ("written_bytes", ctypes.c_uint64),
    )


class COptions(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("threadgroup", ctypes.c_uint32 * 3),
        ("seed", ctypes.c_uint64),
        ("preempt", ctypes.c_uint32),
        ("equal_writes_race", ctypes.c_uint32),
        ("timeout_ms", ctypes.c_uint32),
        ("threadgroup_bytes", ctypes.c_uint32),
    )


class CReport(ctypes.Structure):
    _fields_ = (
        ("failed", ctypes.c_int32),
        ("line", ctypes.c_int32),
        ("thread", ctypes.c_uint32 * 3),
        ("threadgroup_bytes", ctypes.c_uint32),
        ("code_offset", ctypes.c_uint64),
        ("message", ctypes.c_char * 2000),
    )


@dataclass(frozen=True)
class Argument:
    """One buffer of the kernel function: its memory on the host, and the bytes it reaches (more if it is strided)."""

    parameter: Parameter
    array: npt.NDArray[Any]
    reach: int
    initialized: bool = True

    def to_c(self) -> CBuffer:
        address, size = self.array.ctypes.data, self.array.itemsize
        output = self.parameter.kind == "output"
        return CBuffer(self.parameter.name.encode(), address, self.reach, size, output, self.initialized, 0, 0, 0, 0, 0)


def as_numpy(array: mx.array) -> npt.NDArray[Any]:
    """Return the array's own memory with the same layout; bfloat16 as its bits."""
    mx.eval(array)
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array, copy=False)


def as_mlx(array: npt.NDArray[Any], dtype: mx.Dtype) -> mx.array:
    return mx.array(array).view(mx.bfloat16) if dtype == mx.bfloat16 else mx.array(array)


def reach(array: npt.NDArray[Any]) -> int:
    """Return the bytes from the first element to the end of the last element of a strided view."""
    assert all(stride >= 0 for stride in array.strides), "negative strides are not emulated"
    steps = sum(stride * (count - 1) for stride, count in zip(array.strides, array.shape, strict=True))
    return array.itemsize + steps if array.size else 0


def described(parameter: Parameter, inputs: Sequence[npt.NDArray[Any]]) -> Argument:
    """Return the argument of a parameter: an input, or the shape, strides or number of dimensions of an input."""
    array = inputs[parameter.input]
    if parameter.kind == "shape":
        array = np.array(array.shape, np.int32)
    elif parameter.kind == "strides":
        array = np.array([stride // array.itemsize for stride in array.strides], np.int64)
    elif parameter.kind == "ndim":
        array = np.array(array.ndim, np.int32)
    return Argument(parameter, array, reach(array))


def emulate(
    kernel: Callable[..., Any], emulation: Emulation | None = None, records: list[Record] | None = None
) -> Callable[..., list[mx.array]]:
    """Return a function with the signature of `kernel` that runs on the CPU and appends each launch to `records`.

    The function raises KernelError with the line and thread of a mistake, or CompileError.
    """
    how = emulation or Emulation()

    def call(*, inputs: Sequence[Any], init_value: float | None = None, **rest: Any) -> list[mx.array]:
        arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
        generated = trace(kernel, arrays, **rest)
        problems = lint.check(generated) if how.strict else []
        if problems:
            raise CompileError("\n".join(problems))
        library = build(generated, how.ulp_noise)
        values = [as_numpy(array) for array in arrays]
        if generated.contiguous:
            values = [np.ascontiguousarray(value).reshape(value.shape) for value in values]
        results = []
        for shape, dtype in zip(rest["output_shapes"], rest["output_dtypes"], strict=True):
            results.append(as_numpy(mx.full(shape, init_value or 0, dtype=dtype)).copy().reshape(shape))
        left = iter(results)
        arguments = [
            Argument(p, (value := next(left)), value.nbytes, init_value is not None)
            if p.kind == "output"
            else described(p, values)
            for p in generated.parameters
            if p.kind != "attribute"
        ]
        record = launch(generated, library, arguments, how)
        if records is not None:
            records.append(record)
        return [as_mlx(value, dtype) for value, dtype in zip(results, rest["output_dtypes"], strict=True)]

    return call


def launch(generated: Generated, library: Path, arguments: list[Argument], how: Emulation) -> Record:
    cxx = compiler()
    assert cxx is not None
    buffers = (CBuffer * len(arguments))(*(argument.to_c() for argument in arguments))
    options = COptions(
        generated.grid,
        generated.threadgroup,
        how.seed,
        how.preempt,
        how.equal_writes_race,
        int(how.timeout * 1000),
        THREADGROUP_BYTES,
    )
    report = CReport()
    entry = ctypes.cast(load(library).metal_entry, ctypes.c_void_p)
    load(runtime(cxx)).metal_launch(entry, buffers, len(buffers), ctypes.byref(options), ctypes.byref(report))
    if report.failed:
        raise KernelError(explain(generated, library, report, how))
    for argument, buffer in zip(arguments, buffers, strict=True):
        if buffer.unwritten_count:
            raise KernelError(
                f"{generated.name}: {buffer.unwritten_count} of {argument.array.size} elements of the output "
                f"{argument.parameter.name} were written by no thread (first: {buffer.unwritten_first})"
            )
    traffic = {
        argument.parameter.name: Traffic(argument.reach, buffer.read_bytes, buffer.written_bytes)
        for argument, buffer in zip(arguments, buffers, strict=True)
    }
    return Record(generated.name, traffic, report.threadgroup_bytes)


def explain(generated: Generated, library: Path, report: CReport, how: Emulation) -> str:
    message = report.message.decode()
    undefined = re.search(r"\(\S*\.metal:(\d+)\)", message)
    line = int(undefined[1]) if undefined else report.line or line_of(library, report.code_offset)
    text = generated.text.split("\n")
    where = f"\n  at line {line}: {text[line - 1].strip()}" if 0 < line <= len(text) else ""
    return (
        f"{generated.name}: {message}{where}\n  in thread {tuple(report.thread)} of the grid {generated.grid}, "
        f"threadgroup {generated.threadgroup}, seed {how.seed}"
    )
