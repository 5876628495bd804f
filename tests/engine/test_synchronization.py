"""The host waits for the device once per step for all requests, because all reads use `engine.read`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from d3mlx import Generation, engine, load
from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.engine import decode
from d3mlx.kernels import dispatch
from d3mlx.models import transformer
from d3mlx.request import Request
from tests.fakes import END, MASK, VOCAB, TableModel, random_table
from tests.metal import emulated
from tests.metal.requirements import require_compiler

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / "d3mlx" / f"{name}.py" for name in ("engine", "request", "batch", "cache", "canvas", "profiling")),
    *sorted((ROOT / "d3mlx" / "decoding").glob("*.py")),
    *sorted((ROOT / "d3mlx" / "models").glob("*.py")),
    *sorted((ROOT / "kernels").glob("*.py")),
]
WAITING = {"eval", "item", "synchronize"}
"""Calls that wait for a device or give an array to Python."""

TO_NUMPY = {"array", "asarray", "from_dlpack"}


def reads(tree: ast.AST, function: str = "") -> Iterator[tuple[str, str, int]]:
    """Yield function, call and line of every call that may wait: MLX's, and NumPy's unless the argument is a list."""
    for node in ast.iter_child_nodes(tree):
        yield from reads(node, node.name if isinstance(node, ast.FunctionDef) else function)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = node.func.value, node.func.attr
        of = owner.id if isinstance(owner, ast.Name) else ""
        made_on_host = bool(node.args) and isinstance(node.args[0], ast.List | ast.ListComp)
        if name in WAITING or (of in ("np", "numpy") and name in TO_NUMPY and not made_on_host):
            yield function, f"{of}.{name}", node.lineno


READERS = {
    "engine.py": ("read",),
    "profiling.py": ("wait",),
    "guard.py": ("checked",),
    "dispatch.py": ("on_host",),
}
"""The functions that may wait: the read of a step, the wait that only a profile needs, the check before a run, and the
read of a kernel's inputs after it failed."""

ON_HOST = {
    ("schedule.py", "make_block_table", "np.array"),
    ("canvas.py", "__init__", "np.asarray"),
    ("cache.py", "match", "np.asarray"),
}
"""Calls whose argument is a list or a NumPy array, not a device array."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_other_function_reads_from_the_device(path: Path) -> None:
    tree = ast.parse(path.read_text())
    readers = READERS.get(path.name, ())
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in readers)]
    allowed = {tuple(call) for name, *call in ON_HOST if name == path.name}
    assert [call for call in reads(tree) if call[:2] not in allowed] == []


class QuietModel(TableModel):
    """A table model that does not read its positions on the host."""

    def hidden(self, ids: mx.array, positions: Any = 0, cache: Any = None) -> mx.array:
        batch, rows = ids.shape
        computed = mx.arange(positions, positions + rows) if isinstance(positions, int) else mx.array(positions.data)
        return mx.broadcast_to(computed.astype(mx.float32)[None, :, None], (batch, rows, 1))


PRESETS: list[tuple[str, Any]] = [
    ("llada", D3LLM(threshold=1.0)),
    ("llada", FastDLLM(threshold=0.5)),
    ("llada", FastDLLM(factor=1.0)),
    ("llada", Vanilla()),
    ("llada", Vanilla(alg="random", steps=7)),
    ("llada", Vanilla(cfg_scale=0.5)),
    ("llada", Selective(threshold=1.0, rows=8)),
    ("dream", Selective(threshold=1.0, rows=8)),
    ("dream", FastDLLM(cache="dual")),
    ("dream", FastDLLM(cache="none", threshold=0.6, steps=5)),
    ("dream", Vanilla(alg="maskgit_plus", steps=9, alg_temp=0.5)),
    ("dream", Vanilla(alg="topk_margin", steps=9)),
    ("dream", Vanilla(alg="origin", steps=9)),
]
READS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist")
"""Methods of an array that Python calls to get a value."""


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the bytes of every read."""
    sizes: list[int] = []
    original = engine.read

    def counted(*arrays: Any) -> Any:
        results = original(*arrays)
        sizes.append(sum(array.nbytes for array in results))
        return results

    monkeypatch.setattr(engine, "read", counted)
    return sizes


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise AssertionError for every other way to read an array."""

    def refuse(*_: Any) -> None:
        raise AssertionError("an array was read outside engine.read")

    monkeypatch.setattr(dispatch, "on_host", refuse)
    for name in READS:
        monkeypatch.setattr(mx.array, name, refuse)


PER_ROW = 4 * VOCAB
"""Bytes that are read per eligible row without kernels: its logits."""

PER_ROW_OF_KERNELS = 3 * 4
"""Bytes that are read per eligible row with kernels: the committed token, the most likely token, the entropy."""


def canvas_of(new_tokens: int = 40) -> Canvas:
    return Canvas.for_prompt([1, 2, 3], new_tokens, MASK, (END,))


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_a_step_reads_once(family: str, preset: Any, temperature: float, sizes: list[int]) -> None:
    model: Any = QuietModel(random_table(1, 43), family)
    steps = list(decode(model, canvas_of(), preset.build(family), Sampling(temperature)))
    assert sizes == [PER_ROW * len(step.eligible) for step in steps]


@pytest.mark.parametrize(("family", "preset"), PRESETS[:1] + PRESETS[-1:])
def test_a_step_with_kernels_reads_its_result(family: str, preset: Any, sizes: list[int]) -> None:
    require_compiler()
    model: Any = QuietModel(random_table(1, 43), family)
    with emulated():
        steps = list(decode(model, canvas_of(12), preset.build(family)))
    assert sizes == [PER_ROW_OF_KERNELS * len(step.eligible) for step in steps]


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_step_of_many_requests_reads_once(family: str, sizes: list[int]) -> None:
    """Requests with different decoders, temperatures and lengths share the read of a step."""
    model: Any = QuietModel(random_table(1, 43), family)
    presets = [preset for name, preset in PRESETS if name == family]
    requests = [
        Request(model, canvas_of(40 - index), preset.build(family), Sampling(0.8 * (index % 2), seed=index))
        for index, preset in enumerate([*presets, *presets])
    ]
    together = []
    while running := [request for request in requests if not request.done]:
        together.append(engine.step(model, running))
    assert len(together[0]) == len(requests)
    assert sizes == [PER_ROW * sum(len(step.eligible) for step in steps) for steps in together]


@pytest.mark.parametrize(
    "preset", [Selective(), FastDLLM(), Vanilla(steps=6)], ids=["selective", "fast-dllm", "vanilla"]
)
def test_a_forward_given_to_the_device_in_parts_is_the_same(
    preset: Any, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the layers are submitted in groups. Here every layer is, and the rest of the step does not change."""
    bundled, tokenizer = load()
    submitted = []

    def run() -> list[Any]:
        del sizes[:]
        question = [{"role": "user", "content": "Tom has 5 apples and eats 2. How many apples are left?"}]
        steps = list(Generation(bundled, tokenizer, question, preset))
        assert len(sizes) == len(steps)
        return [(step.positions.tolist(), step.tokens.tolist(), step.rows) for step in steps]

    at_once = run()
    monkeypatch.setattr(transformer, "submits", lambda layer: submitted.append(layer) is None)
    assert run() == at_once
    assert submitted == list(range(len(bundled.layers))) * len(at_once)


def test_the_syntax_check_detects_reads() -> None:
    for line in ("mx.eval(x)", "x.item()", "np.array(x)", "np.asarray(stats.p)", "mx.synchronize()"):
        assert list(reads(ast.parse(line))), line
    assert not list(reads(ast.parse("np.array([1, 2])")))
