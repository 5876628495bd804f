"""Memory bandwidth of Apple's chips, and the rate of matrix products to expect from MLX."""

from __future__ import annotations

from dataclasses import dataclass

from d3mlx.errors import ConfigError

# Bandwidth: from Apple's technical specifications, for the largest variant of each chip. Smaller variants have less: an
# M3 Max with 30 GPU cores 300 GB/s, an M4 Max with 32 cores 410, an M5 Max with 32 cores 460.
#
# Matrix products: the same file reports a prefill of 1622 tokens per second at 4 bits. A token of Qwen3-4B takes 7.2
# GFLOP (3.6 billion parameters without the embedding). So an M4 Max does 11.7 TFLOP/s, 64 % of its GPU's peak. The
# peaks are the fp32 rates that huggingface.js lists (packages/tasks/src/hardware.ts). A GPU before M5 has the same rate
# in fp16. The same share, rounded to 0.1, is assumed for the other chips up to M4.
#
# M5: Apple's machine learning research ("Exploring LLMs with MLX and the Neural Accelerators in the M5 GPU") measured
# times to the first token at best about 4 times shorter than on an M4 with the same number of GPU cores. Assumed: 1.1
# TFLOP/s per core, also on M5 Pro and M5 Max. With 10 cores this is 3.8 times the 2.9 TFLOP/s of an M4. A kernel that
# multiplies a vector does not use the units for matrices, and gets the rate of an M4 with as many cores.


@dataclass(frozen=True)
class Chip:
    """Figures of a chip.

    bandwidth: published memory bandwidth in bytes per second. flops: expected FLOP/s of matrix products. vector: the
    same without units for matrices. assumed: whether `flops` is scaled from another chip instead of measured.
    """

    name: str
    bandwidth: float
    flops: float
    vector: float
    assumed: bool = True

    @property
    def generation(self) -> int:
        """Return the number after the M."""
        return int(self.name[1])

    @property
    def ultra(self) -> bool:
        """Return whether the chip is two dies in one."""
        return self.name.endswith("Ultra")


def chip(name: str, gigabytes: float, teraflops: float, vector: float | None = None, assumed: bool = True) -> Chip:
    """Return a chip, for a bandwidth in GB/s and rates in TFLOP/s."""
    return Chip(name, gigabytes * 1e9, teraflops * 1e12, (vector or teraflops) * 1e12, assumed)


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
    chip("M5", 153, 11.0, vector=2.9),
    chip("M5 Pro", 307, 22.0, vector=5.9),
    chip("M5 Max", 614, 44.0, vector=11.7),
)


def normalized(name: str) -> str:
    """Return a name in the form for comparisons: "Apple M4 Max" and "m4-max" give "m4max"."""
    return "".join(letter for letter in name.lower() if letter.isalnum()).removeprefix("apple")


def chip_named(name: str) -> Chip:
    """Return the chip with this name. Raises ConfigError that lists the chips."""
    match = next((chip for chip in CHIPS if normalized(chip.name) == normalized(name)), None)
    if match is None:
        known = ", ".join(chip.name for chip in CHIPS)
        raise ConfigError(f"Unknown chip {name!r}. Choose {known}.")
    return match
