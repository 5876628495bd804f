"""Measure the steps of a long answer of a block-causal model: time outside attention, and memory.

    python -m d3mlx.research.experiments.long_answers [--tokens 4096]

A step writes its keys and values in place, so its time outside attention must not grow with the answer. Attention is
left out of the measured steps: its result is replaced by the queries, and keys and values are still written.
"""

from __future__ import annotations

import gc
import time
from typing import Annotated, Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import typer

from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.cache import bytes_per_position
from d3mlx.canvas import Canvas
from d3mlx.decoding.sdar import SDAR
from d3mlx.engine import decode
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

SIZES = Sizes("sdar", layers=8, hidden=256, heads=4, kv_heads=2, ff=768, vocab=512, head_dim=64)
PARTS = 8
"""Parts of the answer that are compared."""


def written(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None = None) -> Any:
    """Return the queries instead of attention, after keys and values are written."""
    return mx.depends([queries], [keys, values])[0]


def measure(tokens: Annotated[int, typer.Option(min=64, help="Tokens of the answer.")] = 4096) -> None:
    """Decode one token per step, and print the median time of a step and the memory for each part of the answer."""
    model = random_model(SIZES)
    mx.eval(model.parameters())
    decoder = SDAR(alg="sequential").build("sdar")
    with patch("d3mlx.cache.attention", written):
        for count in (64, tokens):
            gc.collect()
            before = mx.get_active_memory()
            canvas = Canvas.for_prompt([1], count, model.args.mask_token_id, block_size=model.args.block_size)
            seconds, in_use, began = [], [], time.process_time()
            for _ in decode(model, canvas, decoder):
                seconds.append(time.process_time() - began)
                in_use.append(mx.get_active_memory() - before)
                began = time.process_time()
    width = bytes_per_position(model.args.shape(), itemsize=4, keep=True)
    rows: list[list[str]] = []
    for part, used in zip(
        np.array_split(np.array(seconds), PARTS), np.array_split(np.array(in_use), PARTS), strict=True
    ):
        end = (len(rows) + 1) * tokens // PARTS
        figures = (f"{1e3 * np.median(part):.3f}", f"{used[-1] / 1e6:.3f}", f"{end * width / 1e6:.3f}")
        rows.append([str(end), *figures])
    header = ["tokens", "CPU ms per step", "MB above the model", "MB of K/V and hidden rows"]
    typer.echo(f"{tokens} tokens, one per step, {SIZES}, float32:\n\n{table(header, rows)}")


if __name__ == "__main__":
    script(measure)
