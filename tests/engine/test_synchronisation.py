"""The host waits for the device once a step: all reads go through `engine.read`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from d3mlx import engine
from d3mlx.canvas import Canvas
from d3mlx.decoding.presets import D3LLM, D3MLX, FastDLLM, Vanilla
from d3mlx.engine import decode
from tests.fakes import END, MASK, TableModel, random_table

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "d3mlx" / "engine.py",
    ROOT / "d3mlx" / "cache.py",
    ROOT / "d3mlx" / "stages.py",
    *sorted((ROOT / "d3mlx" / "decoding").glob("*.py")),
    *sorted((ROOT / "d3mlx" / "models").glob("*.py")),
    *sorted((ROOT / "kernels").glob("*.py")),
]
WAITING = {"eval", "async_eval", "item", "synchronize"}
"""Calls that wait for a device, or hand an array to Python."""

TO_NUMPY = {"array", "asarray", "from_dlpack"}


def reads(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every call that could wait: MLX's own, and NumPy's of what is no plain list."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = node.func.value, node.func.attr
        of = owner.id if isinstance(owner, ast.Name) else ""
        made_on_host = bool(node.args) and isinstance(node.args[0], ast.List | ast.ListComp)
        if name in WAITING or (of in ("np", "numpy") and name in TO_NUMPY and not made_on_host):
            yield f"{of}.{name}", node.lineno


READERS = {"engine.py": "read", "stages.py": "wait"}
"""The functions that may: the read of a step, and the wait that only a profile asks for."""

HOST_LISTS = {("schedule.py", "np.array")}
"""Lists built by the lines before, no device array."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_other_function_reads_from_the_device(path: Path) -> None:
    tree = ast.parse(path.read_text())
    reader = READERS.get(path.name)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == reader)]
    assert [(call, line) for call, line in reads(tree) if (path.name, call) not in HOST_LISTS] == []


class QuietModel(TableModel):
    """A table model that does not read the positions it is asked for."""

    def hidden(self, ids: mx.array, positions: Any = 0, cache: Any = None) -> mx.array:
        batch, rows = ids.shape
        places = mx.arange(positions, positions + rows) if isinstance(positions, int) else positions
        return mx.broadcast_to(places.astype(mx.float32)[None, :, None], (batch, rows, 1))


PRESETS = [
    ("llada", D3LLM(threshold=1.0)),
    ("llada", FastDLLM(threshold=0.5)),
    ("llada", FastDLLM(factor=1.0)),
    ("llada", Vanilla()),
    ("llada", D3MLX(threshold=1.0, row_multiple=4)),
    ("dream", D3MLX(threshold=1.0, row_multiple=4)),
    ("dream", FastDLLM(rows="dual")),
]
READS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist")
"""What an array is asked for where Python needs a value."""


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_one_read_a_step(family: str, preset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = engine.read

    def counted(arrays: Any) -> Any:
        found = original(arrays)
        sizes.append(sum(array.nbytes for array in found))
        return found

    def refuse(*_: Any) -> None:
        raise AssertionError("an array was read outside engine.read")

    monkeypatch.setattr(engine, "read", counted)
    for name in READS:
        monkeypatch.setattr(mx.array, name, refuse)
    canvas = Canvas([1, 2, 3], 40, MASK, (END,))
    steps = list(decode(QuietModel(random_table(1, 43), family), canvas, preset.build(family)))
    assert len(sizes) == len(steps)
    # Twelve bytes a row and eight a block, or the six columns of the statistics.
    assert max(sizes) <= 40 * 6 * 4


def test_what_the_check_is_for() -> None:
    """The syntax check sees the ways in which a read could slip in."""
    for line in ("mx.eval(x)", "x.item()", "np.array(x)", "np.asarray(stats.p)", "mx.synchronize()"):
        assert list(reads(ast.parse(line))), line
    assert not list(reads(ast.parse("np.array([1, 2])")))
