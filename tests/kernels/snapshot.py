"""The Metal text of every kernel of the package, as MLX generates it for one typical call.

To review a change of a kernel, compare the files in snapshots/. To write them again, run:

    python -m tests.kernels.snapshot
"""

from __future__ import annotations

import math
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from d3mlx.kernels import accept_blocks, dispatch, refresh_rows, token_stats
from d3mlx.kernels.accept_blocks import Rule
from tests.metal.trace import Generated, trace

FOLDER = Path(__file__).parent / "snapshots"


def rules(rows: int) -> list[Rule]:
    """Return a rule for each kernel that a preset uses, as the preset makes it for `rows` rows."""
    noise = np.full(rows, 0.5, np.float32)
    quota = Rule("confidence", most=2)
    drawn = {"progress": False, "noise": noise, "heat": 0.2}
    return [
        # d3LLM for LLaDA and for Dream.
        Rule("entropy", 0.5, best_always=True, force_likeliest=True),
        Rule("entropy", 0.4, inclusive=False),
        # The same with a relaxed threshold.
        Rule("entropy", 0.5, best_always=True, force_likeliest=True, noise=noise),
        Rule("entropy", 0.4, inclusive=False, noise=noise),
        # SDAR, with one token and with two in a step, and Fast-dLLM v2.
        Rule("confidence", 0.9, inclusive=False, best_always=True),
        Rule("confidence", 0.9, inclusive=False, best_always=True, least=2),
        # Fast-dLLM.
        Rule("confidence", 0.9, best_always=True),
        Rule("factor", 1.0),
        Rule("opening"),
        # LLaDA's own sampler.
        quota,
        Rule("random", most=2, noise=noise),
        # Dream's own sampler: in order of confidence, drawn in proportion to it, and by chance alone.
        Rule("entropy", math.inf, most=2, progress=False),
        Rule("margin", most=2, progress=False),
        Rule("entropy", math.inf, most=2, **drawn),
        Rule("margin", most=2, **drawn),
        quota._replace(**drawn),
        Rule("random", -0.5, inclusive=False, progress=False, noise=-noise),
    ]


def typical_calls(dtype: mx.Dtype = mx.bfloat16, rows: int = 8) -> list[tuple[dispatch.Kernel, dispatch.Launch]]:
    """Return one call of each kernel, on `rows` rows."""
    logits = mx.zeros((rows, 1000), dtype)
    draw = token_stats.Draw.of(np.arange(rows, dtype=np.int32), 1.0, 0, 0)
    choices: list[token_stats.Choice] = [None, mx.zeros((rows, 1000)), draw]
    calls = [(token_stats.kernel_of(choice), token_stats.launch(logits, 3, choice)) for choice in choices]
    x, positions = mx.zeros((1, 2, rows, 64), dtype), np.arange(rows, dtype=np.int32)
    rotation = refresh_rows.Rotary(nn.RoPE(64)).at(positions)
    calls.append((refresh_rows.KERNEL, refresh_rows.launch(x, x, x, rotation)))
    stats, focus = token_stats.token_stats(logits, 3), (0, rows)
    for rule in rules(rows):
        calls.append((accept_blocks.kernel_of(rule), accept_blocks.launch(stats, positions, focus, rule)))
    return calls


def generated(kernel: dispatch.Kernel, launch: dispatch.Launch) -> Generated:
    inputs = [x if isinstance(x, mx.array) else mx.array(x) for x in launch.inputs]
    rest = {name: value for name, value in vars(launch).items() if name != "inputs"}
    return trace(dispatch.compiled(kernel), inputs, **rest)


def texts() -> dict[str, str]:
    """Return the Metal text of each file."""
    return {f"{kernel.name}.metal": generated(kernel, launch).text for kernel, launch in typical_calls()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    current = texts()
    for old in FOLDER.glob("*.metal"):
        if old.name not in current:
            old.unlink()
    for file, text in current.items():
        (FOLDER / file).write_text(text)
