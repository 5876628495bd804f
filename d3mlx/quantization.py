"""Quantization of weights (modes, and the arrays of a layer) and of cached keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from d3mlx.errors import ConfigError, listed


class Choice(NamedTuple):
    """Group sizes and bits that a mode allows; mlx-lm's default comes first."""

    groups: tuple[int, ...]
    bits: tuple[int, ...]


MODES = {
    "affine": Choice((64, 32, 128), (4, 2, 3, 5, 6, 8)),
    "mxfp4": Choice((32,), (4,)),
    "nvfp4": Choice((16,), (4,)),
    "mxfp8": Choice((32,), (8,)),
}
FLOATS = ("F32", "F16", "BF16")


class LayerQuantization(NamedTuple):
    """Quantization of one layer.

    group_size: number of weights of a row that share a scale (and in affine mode a bias). bits: bits per weight. mode:
    one of MODES.
    """

    group_size: int
    bits: int
    mode: str

    @classmethod
    def of(cls, layer: Any) -> LayerQuantization:
        """Return the quantization of a quantized MLX layer."""
        return cls(layer.group_size, layer.bits, layer.mode)

    @classmethod
    def read(cls, settings: Any) -> LayerQuantization | None:
        """Return the quantization in config.json's `quantization` or in an entry of it; None if MLX lacks it."""
        if not isinstance(settings, dict):
            return None
        group, bits, mode = settings.get("group_size"), settings.get("bits"), settings.get("mode", "affine")
        known = isinstance(mode, str) and mode in MODES and not isinstance(bits, bool)
        return cls(group, bits, mode) if known and group in MODES[mode].groups and bits in MODES[mode].bits else None

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
        """Return the shape and possible dtypes of each array, by name, of a layer with weights of `shape`."""
        *rows, width = shape
        scales = (*rows, width // self.group_size)
        packed = {"weight": ((*rows, width * self.bits // 32), ("U32",))}
        if self.mode == "affine":
            return {**packed, "scales": (scales, FLOATS), "biases": (scales, FLOATS)}
        return {**packed, "scales": (scales, ("U8",))}


@dataclass(frozen=True)
class KVQuantization:
    """Quantization of cached keys and values in affine mode.

    bits: bits per number. group_size: how many numbers of a head share a scale and a bias.
    """

    bits: int
    group_size: int

    def __post_init__(self) -> None:
        choice = MODES["affine"]
        if self.bits not in choice.bits:
            raise ConfigError(f"kv-bits must be one of {listed(choice.bits)}, not {self.bits}.")
        if self.group_size not in choice.groups:
            raise ConfigError(f"kv-group-size must be one of {listed(choice.groups)}, not {self.group_size}.")

    def check(self, head_dim: int) -> None:
        """Raise ConfigError if `head_dim`, the numbers of a head, is not a multiple of the group size."""
        if head_dim % self.group_size == 0:
            return
        fitting = [group for group in MODES["affine"].groups if head_dim % group == 0]
        advice = f"Use kv-group-size {max(fitting)}" if fitting else "Leave out kv-bits"
        raise ConfigError(
            f"This model's heads have {head_dim} numbers, which is not a multiple of {self.group_size}. {advice}."
        )


def bits_of(quantization: dict[str, Any]) -> list[int]:
    """Return the different bits per weight of the layers, ascending. quantization: from config.json."""
    own = {layer["bits"] for layer in quantization.values() if isinstance(layer, dict) and "bits" in layer}
    return sorted(own | {quantization["bits"]})
