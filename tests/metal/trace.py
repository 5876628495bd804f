"""The Metal text of a kernel call, as MLX generates it.

MLX can trace a `metal_kernel` call on a machine without Metal while it exports a function. It returns the complete
source with grid, threadgroup and math mode. So the emulator compiles the text that Metal would get.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx

Size = tuple[int, int, int]
Kind = Literal["input", "shape", "strides", "ndim", "output", "attribute"]

PARAMETER = re.compile(
    r"^\s*(?P<const>const\s+)?(?:(?P<space>device|constant)\s+)?(?P<type>atomic<\w+>|\w+)\s*(?P<mark>[*&]?)\s*"
    r"(?P<name>\w+)\s*\[\[[\w()]+\]\]\s*$"
)
INSTANCE = re.compile(r"\ntemplate \[\[host_name\(\"[^\"]*\"\)\]\] \[\[kernel\]\] decltype\((.*)\) .*;\n$")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the kernel function. input: number of the input that it is or describes, -1 for neither."""

    type: str
    name: str
    kind: Kind
    space: str = ""
    reference: bool = False
    input: int = -1


@dataclass(frozen=True)
class Generated:
    """The result of MLX for one call. instance: the name of the kernel with its template arguments, if it has any."""

    name: str
    text: str
    grid: Size
    threadgroup: Size
    contiguous: bool
    fast_math: bool
    instance: str
    parameters: tuple[Parameter, ...]


def trace(kernel: Callable[..., Any], inputs: Sequence[Any], **call: Any) -> Generated:
    """Generate the source of the call `kernel(inputs=inputs, **call)` with MLX, without running it."""
    calls: list[Any] = []

    def record(event: dict[str, Any]) -> None:
        if event["type"] == "primitive" and event["name"] == "CustomKernel":
            calls.append(event["arguments"])

    def function(*arrays: mx.array) -> Any:
        rest = iter(arrays)
        return kernel(inputs=[next(rest) if isinstance(x, mx.array) else x for x in inputs], stream=mx.gpu, **call)

    mx.export_function(record, function, *(x for x in inputs if isinstance(x, mx.array)))
    name, text, *state = calls[0]
    instance = INSTANCE.search(text)
    return Generated(
        name=name,
        text=text,
        grid=tuple(state[0:3]),
        threadgroup=tuple(state[3:6]),
        contiguous=state[7],
        fast_math=state[-1] == 2,
        instance=instance[1] if instance else name,
        parameters=tuple(parameters(text, name)),
    )


def parameters(text: str, name: str) -> list[Parameter]:
    """Parse the generated signature. Return its parameters, in order."""
    start = text.index(f"[[kernel]] void {name}(\n")
    signature = text[text.index("(\n", start) + 2 : text.index(") {\n", start)]
    parsed: list[Parameter] = []
    index, owner = -1, ""
    for line in signature.split(",\n"):
        match = PARAMETER.match(line)
        assert match, f"cannot read the parameter {line!r}"
        kind: Kind = "input"
        if match["space"] is None:
            kind = "attribute"
        elif not match["const"]:
            kind = "output"
        elif owner and match["name"] in (f"{owner}_shape", f"{owner}_strides", f"{owner}_ndim"):
            kind = match["name"].removeprefix(f"{owner}_")  # type: ignore[assignment]
        else:
            index, owner = index + 1, match["name"]
        about = index if kind in ("input", "shape", "strides", "ndim") else -1
        parsed.append(Parameter(match["type"], match["name"], kind, match["space"] or "", match["mark"] == "&", about))
    return parsed
