"""Measure the memory of a request that commits one token per step: from the shapes of K and V, and by MLX's count.

python -m d3mlx.research.experiments.memory [--steps 2000]
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import mlx.core as mx
import numpy as np
import typer

from d3mlx.bench.shapes import Sizes, random_model
from d3mlx.canvas import Canvas
from d3mlx.decoding.cache_policy import LONG
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.selective import Selective
from d3mlx.engine import decode
from d3mlx.request import Step
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

SIZES = Sizes("llada", layers=2, hidden=64, heads=1, kv_heads=1, ff=64, vocab=64)
PROMPT = 64
ALONE: dict[str, Any] = {"threshold": 0.0, "block_size": 8, "block_add": 1.0, "activation": 1.0}
"""One block at a time, and one token per step."""

DECODERS: dict[str, Preset] = {
    "selective": Selective(**ALONE),
    "selective, all masks from the start": Selective(**ALONE, first_masks=LONG),
    "selective, 8-bit K/V": Selective(**ALONE, kv_bits=8),
}
"""Canvas and cache grow with the answer, unless all masks are active from the start."""


def stored(positions: int, kv_bits: int | None) -> int:
    """Return the bytes of K, V and the last hidden rows in float32, from their shapes. A group of 64 has two floats."""
    number = 4 if kv_bits is None else kv_bits / 8 + 2 * 4 / 64
    width = SIZES.hidden // SIZES.heads * SIZES.kv_heads
    return int(positions * (2 * SIZES.layers * width * number + 4 * SIZES.hidden))


def live(steps: Iterator[Step], before: int) -> list[int]:
    """Return the bytes in use after each step, minus `before`."""
    return [mx.get_active_memory() - before for _ in steps]


def measure(steps: Annotated[int, typer.Option(min=2, help="Steps, and new tokens.")] = 2000) -> None:
    """Decode with the selective cache, and print the memory after the second, the middle and the last step."""
    model = random_model(SIZES)
    mx.eval(model.parameters())
    rows = []
    for name, preset in DECODERS.items():
        prompt = np.random.default_rng(0).integers(0, SIZES.vocab - 2, PROMPT).tolist()
        decoder = preset.build("llada")
        gc.collect()
        before = mx.get_active_memory()
        canvas = Canvas.for_prompt(prompt, steps, model.args.mask_token_id)
        in_use = live(islice(decode(model, canvas, decoder), steps), before)
        gc.collect()
        marks = (in_use[1], in_use[len(in_use) // 2], in_use[-1], mx.get_active_memory() - before)
        computed = stored(PROMPT + steps, decoder.kv.bits if decoder.kv else None)
        rows.append([name, str(len(in_use)), *(f"{count / 1e6:.3f}" for count in (computed, *marks))])
    header = ["", "steps", "from shapes", "after step 2", "after half of them", "after the last", "afterwards"]
    typer.echo(f"MB above the model; prompt of {PROMPT}, {steps} new tokens, {SIZES}:\n\n{table(header, rows)}")


if __name__ == "__main__":
    script(measure)
