"""The Metal text of a kernel call, from MLX itself.

MLX can trace a `metal_kernel` call on a machine without Metal while it exports a function, and hands over the whole
generated source with grid, threadgroup and math mode. So what is compiled here is the text that Metal would get, and
there is no second generator to keep in step.
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
    """One parameter of the kernel function. `input`: which input it is, or which one it describes; -1 for neither."""

    type: str
    name: str
    kind: Kind
    space: str = ""
    reference: bool = False
    input: int = -1


@dataclass(frozen=True)
class Generated:
    """What MLX made of one call. `instance` is the name with its template arguments, if it has any."""

    name: str
    text: str
    grid: Size
    threadgroup: Size
    contiguous: bool
    fast_math: bool
    instance: str
    parameters: tuple[Parameter, ...]


def trace(kernel: Callable[..., Any], inputs: Sequence[Any], **call: Any) -> Generated:
    """Let MLX generate the source of the call `kernel(inputs=inputs, **call)`; nothing runs."""
    found: list[Any] = []

    def record(event: dict[str, Any]) -> None:
        if event["type"] == "primitive" and event["name"] == "CustomKernel":
            found.append(event["arguments"])

    def function(*arrays: mx.array) -> Any:
        rest = iter(arrays)
        return kernel(inputs=[next(rest) if isinstance(x, mx.array) else x for x in inputs], stream=mx.gpu, **call)

    mx.export_function(record, function, *(x for x in inputs if isinstance(x, mx.array)))
    name, text, *state = found[0]
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
    """Read the generated signature back: the order and kind of the arguments."""
    start = text.index(f"[[kernel]] void {name}(\n")
    signature = text[text.index("(\n", start) + 2 : text.index(") {\n", start)]
    found: list[Parameter] = []
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
        found.append(Parameter(match["type"], match["name"], kind, match["space"] or "", match["mark"] == "&", about))
    return found
