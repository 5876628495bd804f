"""The Metal text of every kernel of the package, as MLX generates it for one typical call.

The files in snapshots/ are what a change of a kernel is reviewed by. This rewrites them:

    python -m tests.kernels.snapshot
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from d3mlx.kernels import accept_blocks, choose_rows, dispatch, refresh_rows, token_stats
from d3mlx.kernels.accept_blocks import Rule
from tests.metal.trace import Generated, trace

FOLDER = Path(__file__).parent / "snapshots"


RULES = [
    Rule("entropy", 0.5, best_always=True, force_likeliest=True),
    Rule("entropy", 0.4, inclusive=False),
    Rule("confidence", 0.9, best_always=True),
    Rule("factor", 1.0),
    Rule("opening"),
]
"""Every kind that a preset uses."""


def typical_calls(dtype: mx.Dtype = mx.bfloat16, rows: int = 8) -> list[tuple[dispatch.Kernel, dispatch.Launch]]:
    """One call of each kernel on `rows` rows."""
    logits = mx.zeros((rows, 1000), dtype)
    draw = token_stats.Draw(mx.arange(rows), 1.0, 0, 0)
    choices: list[token_stats.Choice] = [None, mx.zeros((rows, 1000)), draw]
    calls = [(token_stats.chosen_kernel(choice), token_stats.launch(logits, 3, choice)) for choice in choices]
    x, table = mx.zeros((1, 2, rows, 64), dtype), refresh_rows.frequencies(64, 10000.0, 1.0)
    calls.append((refresh_rows.KERNEL, refresh_rows.launch(x, x, x, mx.arange(rows), table)))
    stats, positions = token_stats.token_stats(logits, 3), mx.arange(rows)
    blocks = mx.array([[0, rows, rows, accept_blocks.FULL, 0, 0]])
    for rule in RULES:
        kernel = accept_blocks.kernel(rule.kind, rule.inclusive)
        calls.append((kernel, accept_blocks.launch(stats, positions, blocks, rule, mx.array([-1, 5]))))
    ages = mx.zeros(rows, mx.int32)
    calls.append((choose_rows.KERNEL, choose_rows.launch(ages.astype(mx.uint8), ages, rows, 3)))
    return calls


def generated(kernel: dispatch.Kernel, launch: dispatch.Launch) -> Generated:
    inputs = [x if isinstance(x, mx.array) else mx.array(x) for x in launch.inputs]
    rest = {name: value for name, value in vars(launch).items() if name != "inputs"}
    return trace(dispatch.compiled(kernel), inputs, **rest)


def texts() -> dict[str, str]:
    """File name -> Metal text."""
    return {f"{kernel.name}.metal": generated(kernel, launch).text for kernel, launch in typical_calls()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in texts().items():
        (FOLDER / file).write_text(text)
