"""Compare predicted times of quantized matrix products with public measurements: docs/results/staircase.md.

python -m d3mlx.research.experiments.staircase

Nothing is measured here. The measurements are figures that others published in issues and pull requests of MLX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from d3mlx.bench import kernels
from d3mlx.bench.chips import CHIPS, Chip, chip_named
from d3mlx.bench.cost import cost
from d3mlx.bench.forwards import ROWS
from d3mlx.bench.kernels import Matrix
from d3mlx.bench.roofline import Roofline
from d3mlx.bench.shapes import SHAPES, skeleton
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.script import script

PAGE = "docs/results/staircase.md"
FITTED = (1, 8, 32)
"""Row counts of the first measurement that set the three constants."""

OLD_BANDWIDTH = 0.6
"""Share of the bandwidth in the model max(bytes, rows), which the staircase replaces."""


@dataclass(frozen=True)
class Published:
    """A public measurement. source: who measured what. times: milliseconds by row count. bits: per weight, with scales.

    relative: whether `times` are relative to the time of one row. exempt: row counts at which that MLX version used
    another kernel than the rules of `kernels`.
    """

    source: str
    chip: str
    matrix: Matrix
    bits: float
    times: Mapping[int, float]
    relative: bool = False
    quantized: bool = True
    exempt: tuple[int, ...] = ()

    def predicted(self, rows: int) -> float:
        """Return the predicted value for a row count, in the unit of `times`."""
        ours = self.milliseconds(rows)
        return ours / self.milliseconds(1) if self.relative else ours

    def milliseconds(self, rows: int) -> float:
        """Return the predicted milliseconds of a product."""
        return 1000 * kernels.seconds(chip_named(self.chip), self.matrix, rows, self.bits, quantized=self.quantized)

    def old(self, rows: int) -> float:
        """Return what the model max(bytes, rows) predicts, in the unit of `times`."""
        ours = old_milliseconds(chip_named(self.chip), self.matrix, rows, self.bits)
        return ours / old_milliseconds(chip_named(self.chip), self.matrix, 1, self.bits) if self.relative else ours


def old_milliseconds(chip: Chip, matrix: Matrix, rows: int, bits: float) -> float:
    """Return the longer one of the times for reading and for arithmetic, in milliseconds."""
    reading = matrix.size * bits / 8 / (OLD_BANDWIDTH * chip.bandwidth)
    return 1000 * max(reading, 2 * rows * matrix.size / chip.flops)


WIDE = Matrix(5120, 17408)
M3_MAX = Published(
    "M3 Max, 5120 to 17408, 4 bits in groups of 128, MLX main of July 2026 (pull request 3863)",
    "M3 Max",
    WIDE,
    4.25,
    {
        1: 0.129,
        2: 0.129,
        4: 0.165,
        6: 0.263,
        8: 0.323,
        9: 0.405,
        10: 0.508,
        12: 0.508,
        14: 0.507,
        16: 0.509,
        17: 0.513,
        24: 0.514,
        32: 0.513,
        33: 1.002,
    },
    exempt=(10, 12),
)
OTHERS = (
    Published(
        "M4 Pro, 5120 to 17408, 4 bits in groups of 128, MLX 0.32.0, relative to one row (issue 3852)",
        "M4 Pro",
        WIDE,
        4.25,
        {2: 0.99, 3: 1.13, 4: 1.43, 5: 1.75, 8: 2.84, 10: 4.5, 32: 4.5},
        relative=True,
        exempt=(10,),
    ),
    Published(
        "M4 Pro, 4096 to 24576, 4 bits in groups of 64, MLX 0.32.0, relative to one row (issue 3839)",
        "M4 Pro",
        Matrix(4096, 24576),
        4.5,
        {2: 1.03, 3: 1.22, 4: 1.47, 6: 2.07, 8: 2.69},
        relative=True,
    ),
    Published(
        "M4 Pro, 4096 to 4096, 4 bits in groups of 64, MLX 0.32.0, relative to one row (issue 3839)",
        "M4 Pro",
        Matrix(4096, 4096),
        4.5,
        {2: 1.20, 3: 1.35, 4: 1.57, 6: 1.99, 8: 2.01},
        relative=True,
    ),
    Published(
        "M3 Ultra, 5120 to 17408, 4 bits in groups of 64, MLX 0.31.2 and 0.32.0 (issue 4265)",
        "M3 Ultra",
        WIDE,
        4.5,
        {1: 0.041, 2: 0.076, 4: 0.134, 7: 0.218, 8: 0.252, 16: 0.260},
    ),
    Published(
        "M3 Ultra, 5120 to 17408, bfloat16, MLX 0.31.2 and 0.32.0 (issue 4265)",
        "M3 Ultra",
        WIDE,
        16,
        {1: 0.271, 2: 0.539, 4: 0.538, 7: 0.539, 8: 0.541, 16: 0.541},
        quantized=False,
    ),
    Published(
        "M5, 5120 to 13824, 4 bits in groups of 64, MLX main of August 2026 (pull request 4171)",
        "M5",
        Matrix(5120, 13824),
        4.5,
        {14: 0.833, 32: 0.804},
    ),
    Published(
        "M5 Max, 16384 to 250112, 4 bits in groups of 64, MLX main of August 2026 (pull request 3791)",
        "M5 Max",
        Matrix(16384, 250112),
        4.5,
        {8: 10.888, 10: 16.561, 12: 16.850},
        exempt=(10, 12),
    ),
)


def error(ours: float, theirs: float) -> str:
    """Return the relative error of a prediction in percent."""
    return f"{round(100 * (ours / theirs - 1)):+d} %"


def role(published: Published, rows: int) -> str:
    """Return how a point was used."""
    if published is M3_MAX and rows in FITTED:
        return "fitted"
    return "other kernel" if rows in published.exempt else ""


def compared(published: Published) -> str:
    """Return the table of one measurement: each point beside both models."""
    rows = []
    for count, measured in published.times.items():
        ours, old = published.predicted(count), published.old(count)
        figures = [f"{measured:.3f}", f"{ours:.3f}", error(ours, measured), f"{old:.3f}", error(old, measured)]
        rows.append([str(count), *figures, role(published, count)])
    unit = "times one row" if published.relative else "ms"
    header = ["rows", f"measured, {unit}", "predicted", "error", "max(bytes, rows)", "error", "use"]
    return table(header, rows)


def model_curves() -> str:
    """Return the predicted milliseconds of a forward of a 4-bit LLaDA-8B, with good row counts, for each chip."""
    shown = (1, 4, 8, 16, 32, 33, 64)
    forward = cost(skeleton(SHAPES["llada-8b"], q_bits=4), context=512)
    rows = []
    for chip in CHIPS:
        line = Roofline(chip, forward)
        good = ", ".join(map(str, line.curve(ROWS).good_counts()))
        rows.append([chip.name, *(f"{1000 * line.seconds(count):.1f}" for count in shown), good, f"{line.ceiling:.0f}"])
    header = ["chip", *(f"{count} row{'s' * (count > 1)}" for count in shown), "good counts", "autoregressive tokens/s"]
    return table(header, rows)


def comparison() -> str:
    """Return all tables of measurements."""
    return "\n\n".join(f"{each.source}:\n\n{compared(each)}" for each in (M3_MAX, *OTHERS))


def compare() -> None:
    """Write the tables into the page, and print them."""
    for name, text in (("points", comparison()), ("predictions", model_curves())):
        put(Path(PAGE), name, text)
        typer.echo(text)


if __name__ == "__main__":
    script(compare)
