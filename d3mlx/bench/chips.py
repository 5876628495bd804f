"""Apple's chips: memory bandwidth, and the matrix-product rate that MLX can be expected to reach."""

from __future__ import annotations

from dataclasses import dataclass

from d3mlx.errors import ConfigError

# Bandwidth: Apple's technical specifications of each chip, in its largest variant (an M3 Max with 30 GPU cores has 300
# GB/s instead of 400, an M4 Max with 32 has 410, an M5 Max with 32 has 460).
#
# Achieved share of it: mlx-lm's BENCHMARKS.md (M4 Max, Qwen3-4B, generation) reads 2.26 GB of 4-bit weights 134.5 times
# a second, 56 % of 546 GB/s, and 8.04 GB in bfloat16 52.5 times, 77 %. Assumed to be 60 % on every chip.
ACHIEVED_BANDWIDTH = 0.6

# Matrix products: the same file has a prefill of 1622 tokens a second at 4 bits, and a token of Qwen3-4B takes 7.2
# GFLOP (3.6 billion parameters besides the embedding), so an M4 Max does 11.7 TFLOP/s, 64 % of its GPU's peak. The
# peaks are the fp32 rates that huggingface.js lists (packages/tasks/src/hardware.ts); a GPU before M5 has the same rate
# in fp16. The other chips up to M4 are assumed to reach the same share of theirs, rounded to 0.1.
#
# M5: Apple's machine learning research ("Exploring LLMs with MLX and the Neural Accelerators in the M5 GPU") measured
# times to the first token about 4 times shorter at best than on an M4 with as many GPU cores. Assumed: 1.1 TFLOP/s a
# core, 3.8 times an M4's 2.9 with 10 cores, on M5 Pro and M5 Max as well.


@dataclass(frozen=True)
class Chip:
    """bandwidth: published, bytes a second. flops: expected of matrix products, FLOP/s. assumed: not measured by
    anybody, but scaled from another chip."""

    name: str
    bandwidth: float
    flops: float
    assumed: bool = True

    @property
    def achieved_bandwidth(self) -> float:
        """Bytes a second that a forward can be expected to read."""
        return ACHIEVED_BANDWIDTH * self.bandwidth


def chip(name: str, gigabytes: float, teraflops: float, assumed: bool = True) -> Chip:
    return Chip(name, gigabytes * 1e9, teraflops * 1e12, assumed)


CHIPS = (
    chip("M1", 68.25, 1.7),
    chip("M1 Pro", 200, 3.3),
    chip("M1 Max", 400, 6.6),
    chip("M1 Ultra", 800, 13.4),
    chip("M2", 100, 2.3),
    chip("M2 Pro", 200, 4.3),
    chip("M2 Max", 400, 8.6),
    chip("M2 Ultra", 800, 17.3),
    chip("M3", 100, 2.6),
    chip("M3 Pro", 150, 4.7),
    chip("M3 Max", 400, 9.0),
    chip("M3 Ultra", 819, 18.1),
    chip("M4", 120, 2.9),
    chip("M4 Pro", 273, 5.9),
    chip("M4 Max", 546, 11.7, assumed=False),
    chip("M5", 153, 11.0),
    chip("M5 Pro", 307, 22.0),
    chip("M5 Max", 614, 44.0),
)


def normalized(name: str) -> str:
    """Return a name without what people write differently: "Apple M4 Max" and "m4-max" are one chip."""
    return "".join(letter for letter in name.lower() if letter.isalnum()).removeprefix("apple")


def chip_named(name: str) -> Chip:
    """Return the chip of a name. Raises ConfigError that lists the chips."""
    match = next((chip for chip in CHIPS if normalized(chip.name) == normalized(name)), None)
    if match is None:
        known = ", ".join(chip.name for chip in CHIPS)
        raise ConfigError(f"There are no figures for a chip {name!r}; choose {known}.")
    return match
