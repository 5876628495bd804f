"""Times of MLX's products of rows with one matrix: a staircase, because a kernel computes whole tiles of rows.

The rules are facts read from MLX 0.32.2, mlx/backend/metal/quantized.cpp: `get_qmv_batch_limit` for the limit,
`qmv_wide` for tiles of 5 rows, `qmm` for tiles of 32 rows, `qmm_nax` and `qmm_splitk` for M5. They apply to affine
quantization. The limits are in use since 0.32.1. In 0.32.0, large matrices on M3 to M5 have a limit of 10.

The constants come from public measurements, which docs/results/staircase.md lists beside the predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from d3mlx.bench.chips import Chip

READING = 0.918
VECTOR = 0.491
TILE = 1.235
"""Achieved share of the bandwidth, share of `Chip.vector` in the vector kernel, and share of `Chip.flops` in tiles.

Fitted to a quantized product on an M3 Max: 0.129 ms for 1 row, 0.323 for 8 and 0.513 for 32 (5120 inputs, 17408
outputs, 4 bits in groups of 128). `Chip.flops` comes from complete forwards, so tiles alone exceed it.
"""

PLAIN = 1.28
"""Time per row of the vector kernel of M1 and M2, relative to the newer kernel. On an M4 Pro, 8 rows took 3.44 times as
long as one row with the first, and 2.69 times with the second."""

NAX = {32: 0.512, 64: 0.827}
"""Rows of a tile and share of `Chip.flops` on M5: 32 if all rows fit, else 64. Measured on an M5 with 5120 inputs and
13824 outputs: 0.804 ms for up to 32 rows, and 0.996 ms for a tile of 64."""

SPLIT = 256
"""On M5, a product of at most this many tiles of 32 x 32 outputs runs in the kernel of earlier chips."""

WIDE = 5
"""Largest tile of the vector kernel since M3. It reads the matrix once per tile."""

TILE_ROWS = 32
DENSE_ROWS = 64
"""Rows of a tile for quantized weights and for 16-bit weights."""

LIMITS = {"M5": (33, 25, 13), "M3": (13, 15, 13), "M1": (14, 10, 6), "Ultra": (32, 18, 12)}
"""The first row count that the tile kernel computes: matrices up to 2048 x 2048, up to 4096 x 4096, and larger ones."""


@dataclass(frozen=True)
class Matrix:
    """Equal matrices of a model. inputs, outputs: sizes. count: number of them that one forward uses."""

    inputs: int
    outputs: int
    count: int = 1

    @property
    def size(self) -> int:
        """Return the number of weights in all of them."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True)
class Launch:
    """How a kernel computes some rows. tiles: how often it reads the matrix. rows: computed per tile. rate: FLOP/s."""

    tiles: int
    rows: int
    rate: float


def vector_limit(chip: Chip, matrix: Matrix) -> int:
    """Return the number of rows from which MLX multiplies by a quantized matrix in tiles."""
    newest = "M5" if chip.generation >= 5 else "M3" if chip.generation >= 3 else "M1"
    largest = max(matrix.inputs, matrix.outputs)
    return LIMITS["Ultra" if chip.ultra else newest][0 if largest <= 2048 else 1 if largest <= 4096 else 2]


def vector_rate(chip: Chip) -> float:
    """Return the FLOP/s of the vector kernel."""
    return VECTOR * chip.vector / (PLAIN if chip.generation < 3 else 1)


def tile_rates(chip: Chip) -> dict[int, float]:
    """Return the FLOP/s of the kernels for quantized tiles, by number of rows of a tile, ascending."""
    if chip.generation < 5:
        return {TILE_ROWS: TILE * chip.flops}
    return {rows: share * chip.flops for rows, share in NAX.items()}


def quantized_tile(chip: Chip, matrix: Matrix, rows: int) -> tuple[int, float]:
    """Return the rows of a tile and the FLOP/s for a product of `rows` rows with one quantized matrix."""
    tiles = math.ceil(matrix.outputs / TILE_ROWS) * math.ceil(rows / TILE_ROWS)
    if chip.generation >= 5 and tiles <= SPLIT:
        return TILE_ROWS, TILE * chip.vector
    rates = tile_rates(chip)
    size = next((size for size in rates if rows <= size), max(rates))
    return size, rates[size]


def launch(chip: Chip, matrix: Matrix, rows: int, quantized: bool) -> Launch:
    """Return how MLX computes the product of `rows` rows with one matrix. Without `quantized`, weights have 16 bits."""
    if rows < (vector_limit(chip, matrix) if quantized else 2):
        tiles = math.ceil(rows / WIDE) if chip.generation >= 3 else 1
        return Launch(tiles, math.ceil(rows / tiles), vector_rate(chip))
    dense = DENSE_ROWS, max(tile_rates(chip).values())
    size, rate = quantized_tile(chip, matrix, rows) if quantized else dense
    return Launch(math.ceil(rows / size), size, rate)


def seconds(chip: Chip, matrix: Matrix, rows: int, bits: float, quantized: bool = True) -> float:
    """Return the seconds of the products of `rows` rows with all these matrices. bits: per weight, with scales."""
    run = launch(chip, matrix, rows, quantized)
    reading = matrix.size * bits / 8 / (READING * chip.bandwidth)
    return run.tiles * max(reading, 2 * run.rows * matrix.size / run.rate)
