"""Measure the savings of the kernels, as far as this is possible without a Mac.

    python -m tests.kernels.measure

On the CPU, compare the time of the reference of `token_stats` with that of stock operations. In the emulator, compare
the bytes that each kernel reads and writes with the minimum.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from rich.console import Console
from rich.table import Table

from d3mlx.kernels import token_stats
from d3mlx.kernels.accept_blocks import Rule, accept_blocks
from d3mlx.kernels.dispatch import on_device
from d3mlx.kernels.refresh_rows import Rotary, refresh_rows
from tests.metal import Record, emulated

ROWS, VOCABULARY, EXCLUDED = 64, 126464, 126336


def naive(logits: mx.array) -> list[mx.array]:
    """Return token, probability, second probability and entropy, each [N], computed with stock operations."""
    ids = mx.arange(logits.shape[-1])
    p = mx.softmax(logits.astype(mx.float32), axis=-1)
    entropy = -mx.where(p > 0, p * mx.log(p), 0.0).sum(axis=-1)
    allowed = mx.where(ids == EXCLUDED, -mx.inf, p)
    token = allowed.argmax(axis=-1)
    second = mx.where(ids == token[:, None], -mx.inf, allowed).max(axis=-1)
    return [token, allowed.max(axis=-1), second, entropy]


def cost(run: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median seconds of processor time."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        mx.eval([array for array in run() if isinstance(array, mx.array)])
        seconds.append(time.process_time() - start)
    return sorted(seconds)[repeats // 2]


def references(console: Console) -> None:
    table = Table("token statistics, CPU", "dtype", "seconds", title=f"{ROWS} x {VOCABULARY}")
    for dtype in (mx.float32, mx.bfloat16):
        logits = (mx.random.normal((ROWS, VOCABULARY), key=mx.random.key(0)) * 4).astype(dtype)
        mx.eval(logits)
        runs = {
            "naive chain": lambda x=logits: naive(x),
            "reference": lambda x=logits: token_stats.token_stats(x, EXCLUDED),
        }
        for name, run in runs.items():
            table.add_row(name, str(dtype).removeprefix("mlx.core."), f"{cost(run):.3f}")
    console.print(table)


def traffic(console: Console) -> None:
    table = Table("kernel, emulated", "input", "bytes in", "read", "bytes out", "written", "launches")
    logits = mx.random.normal((2, VOCABULARY), key=mx.random.key(0)).astype(mx.bfloat16)
    draw = token_stats.Draw.of(np.arange(2, dtype=np.int32), 0.7, 0, 0)
    choices: list[tuple[str, token_stats.Choice]] = [("", None), (", drawn", draw), (", scores", draw.scores(logits))]
    for name, choice in choices:
        with emulated() as records:
            token_stats.token_stats(logits, EXCLUDED, choice)
        add(table, f"token_stats{name}", f"2 x {VOCABULARY}, bfloat16", records, ("logits", "scores"))
    heads = mx.zeros((1, 64, 32, 128), mx.bfloat16)
    with emulated() as records:
        positions = np.arange(0, 256, 4, dtype=np.int32)
        refresh_rows(*(heads.transpose(0, 2, 1, 3),) * 3, Rotary(nn.RoPE(128)).at(positions))
    add(table, "refresh_rows", "64 rows, 32 heads of 128, bfloat16", records, ("queries", "keys", "values"))
    random = token_stats.token_stats(mx.random.normal((96, 100), key=mx.random.key(1)), -1)
    stats = token_stats.TokenStats(*map(on_device, random))
    positions = np.arange(256, 352, dtype=np.int32)
    noise = np.full(96, 0.5, np.float32)
    rules = {
        "a level": Rule("entropy", 0.5, best_always=True),
        "a count": Rule("confidence", most=4),
        "a count of drawn rows": Rule("entropy", math.inf, most=4, progress=False, noise=noise, heat=0.2),
        "factor": Rule("factor", 0.5),
    }
    for name, rule in rules.items():
        with emulated() as records:
            accept_blocks(stats, positions, (256, 288), rule)
        columns = (*token_stats.TokenStats._fields, "positions", "noise", "bounds")
        add(table, f"accept_blocks, {name}", "96 rows", records, columns)
    console.print(table)


def add(table: Table, name: str, size: str, records: list[Record], large: tuple[str, ...]) -> None:
    """Add a row to the table.

    large: the inputs that grow with the number of rows. The other inputs are a few words, read from a cache. Bytes that
    a kernel reads from its own output count as reads.
    """
    buffers = [(buffer, t) for record in records for buffer, t in record.traffic.items()]
    inputs = [t for buffer, t in buffers if buffer in large and t.read]
    outputs = [t for _, t in buffers if t.written]
    bytes_in, bytes_out = sum(t.size for t in inputs), sum(t.size for t in outputs)
    read, written = sum(t.read for t in (*inputs, *outputs)), sum(t.written for t in outputs)
    ratios = f"{read / bytes_in:.4f}x", f"{written / bytes_out:.4f}x"
    table.add_row(name, size, f"{bytes_in:,}", ratios[0], f"{bytes_out:,}", ratios[1], str(len(records)))


if __name__ == "__main__":
    console = Console(width=110)
    console.print(f"mlx {mx.__version__}, {os.cpu_count()} CPUs")
    references(console)
    traffic(console)
