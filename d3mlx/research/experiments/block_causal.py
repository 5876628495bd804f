"""Predict the time per token of block-causal models, beside autoregressive models of the same size.

    python -m d3mlx.research.experiments.block_causal

Nothing is measured. The formula is the one of `d3mlx bench --roofline`, and numbers of tokens per forward are those
that other people published. It writes the table of docs/results/block-causal.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from d3mlx.bench.chips import chip_named
from d3mlx.bench.cost import cost
from d3mlx.bench.roofline import Roofline
from d3mlx.bench.shapes import SHAPES, skeleton
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.script import script

PAGE = "docs/results/block-causal.md"
CHIPS = ("M4 Max", "M5 Max")
CONTEXT = 1024
"""Number of positions that a forward attends to."""

BITS = 4


@dataclass(frozen=True)
class Contestant:
    """A model with its published tokens per forward (TPF).

    block: rows of a step. fused: the commit of a block is a part of the first forward of the next one; otherwise it is
    a forward of its own, which TPF does not count. source: where TPF comes from.
    """

    name: str
    shape: str
    block: int
    tpf: float
    fused: bool
    source: str

    def forwards(self, tpf: float) -> list[tuple[float, int]]:
        """Return the number of forwards per block and their rows, for each kind of forward."""
        steps = self.block / tpf
        if self.fused:
            return [(1, 2 * self.block), (steps - 1, self.block)]
        return [(steps + 1, self.block)]

    def seconds(self, roofline: Roofline, tpf: float) -> float:
        """Return the seconds per token."""
        return sum(count * roofline.seconds(rows) for count, rows in self.forwards(tpf)) / self.block

    def break_even(self, roofline: Roofline) -> float:
        """Return the TPF at which a token takes as long as that of an autoregressive model of the same shape."""
        rest = self.block * roofline.seconds(1) - self.seconds(roofline, self.block) * self.block
        steps = 1 + rest / roofline.seconds(self.block)
        return self.block / steps if steps > 0 else float("inf")


BLOCKS = (
    Contestant("SDAR-4B, blocks of 4", "sdar-4b", 4, 2.0, True, "SDAR's README: dynamic is more than 2 x static"),
    Contestant("SDAR-8B, blocks of 32", "sdar-8b", 32, 7.3, True, "LightningRL, average of four tasks"),
    Contestant("Fast-dLLM v2 7B, blocks of 32", "fast-dllm-v2-7b", 32, 2.2, False, "d3LLM's table, GSM8K"),
    Contestant("LLaDA2.1-mini, quality mode", "llada2-mini", 32, 3.12, True, "LLaDA2.1 report, mean"),
    Contestant("LLaDA2.1-mini, speed mode", "llada2-mini", 32, 5.34, True, "LLaDA2.1 report, mean"),
    Contestant("LLaDA2.1-mini, speed mode, code", "llada2-mini", 32, 12.32, True, "LLaDA2.1 report, HumanEval+"),
)
SELECTIVE = ("LLaDA-8B, `selective`", "llada-8b", 3.89, 7.2, "the bundled teacher on short answers")
"""Name, shape, TPF, rows per token and source of the default decoder of bidirectional models."""


def row_of(
    name: str, source: str, tpf: float, seconds: list[float], ceilings: list[float], even: list[float]
) -> list[str]:
    """Return a row of the table. seconds, ceilings, even: per chip."""
    faster = ["faster" if ours < theirs else "slower" for ours, theirs in zip(seconds, ceilings, strict=True)]
    figures = [
        cell
        for ours, theirs, word, needed in zip(seconds, ceilings, faster, even, strict=True)
        for cell in (f"{1000 * ours:.1f}", f"{1000 * theirs:.1f}", f"{theirs / ours:.2f} x, {word}", f"{needed:.1f}")
    ]
    return [name, f"{tpf:g} ({source})", *figures]


def predictions() -> str:
    """Return the table, a prediction for 4-bit weights and a context of 1,024 positions."""
    rows = []
    for each in BLOCKS:
        lines = rooflines(each.shape)
        seconds = [each.seconds(line, each.tpf) for line in lines]
        even = [each.break_even(line) for line in lines]
        rows.append(row_of(each.name, each.source, each.tpf, seconds, [line.seconds(1) for line in lines], even))
    name, shape, tpf, rpt, source = SELECTIVE
    lines = rooflines(shape)
    seconds = [line.seconds(rpt * tpf) / tpf for line in lines]
    # The same number of rows per forward, whatever the TPF.
    even = [line.seconds(rpt * tpf) / line.seconds(1) for line in lines]
    rows.append(row_of(name, source, tpf, seconds, [line.seconds(1) for line in lines], even))
    header = ["model, 4-bit", "TPF"]
    for chip in CHIPS:
        header += [f"{chip}: ms per token", "autoregressive", "speed", "TPF to break even"]
    return table(header, rows)


def rooflines(shape: str) -> list[Roofline]:
    """Return the roofline of a shape on each chip."""
    forward = cost(skeleton(SHAPES[shape], BITS), CONTEXT)
    return [Roofline(chip_named(chip), forward) for chip in CHIPS]


def predict() -> None:
    """Write the table into the page, and print it."""
    text = predictions()
    put(Path(PAGE), "predictions", text)
    typer.echo(text)


if __name__ == "__main__":
    script(predict)
