"""Models of a given shape with random weights, to measure a machine without a download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import get_total_parameters

from d3mlx.checkpoints.checkpoint import MOST_TOKENS, SMALL
from d3mlx.checkpoints.loader import keep_in_memory, memory_limit, nbytes
from d3mlx.errors import ConfigError, MemoryLimitError
from d3mlx.models import family_named, get_model_classes
from d3mlx.quantization import MODES

GROUP = MODES["affine"].groups[0]
"""The number of weights that share a scale, as with `d3mlx convert -q`."""

BITS = sorted(MODES["affine"].bits)
CONTEXT = 32768
"""Context length of a synthetic model. It does not change the cost."""


MOST = {
    "layers": 1000,
    "hidden": 1 << 17,
    "heads": 1 << 12,
    "kv_heads": 1 << 12,
    "ff": 1 << 20,
    "vocab": MOST_TOKENS,
    "head_dim": 1 << 12,
}
"""Largest sizes."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that decide the cost of a forward.

    ff: width inside the MLP. head_dim: 0 for `hidden` / `heads`. Raises ConfigError if they do not fit.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ff: int
    vocab: int
    head_dim: int = 0

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            least = {"vocab": 4, "head_dim": 0}.get(name, 1)
            if not least <= (value := getattr(self, name)) <= most:
                raise ConfigError(f"--{name.replace('_', '-')} must be from {least} to {most:,}, not {value}.")
        if (not self.head_dim and self.hidden % (2 * self.heads)) or self.heads % self.kv_heads:
            raise ConfigError(
                f"--hidden {self.hidden} must be an even number times --heads {self.heads}, and --heads a multiple of "
                f"--kv-heads {self.kv_heads}."
            )

    def config(self) -> dict[str, Any]:
        """Return a config.json of this shape. The two highest token ids are the mask and the end of the answer."""
        sizes: dict[str, Any] = family_named(self.family).config_of(self, CONTEXT)
        return sizes | {"mask_token_id": self.vocab - 1, "eos_token_id": self.vocab - 2}


SHAPES = {
    "llada-8b": Sizes("llada", layers=32, hidden=4096, heads=32, kv_heads=32, ff=12288, vocab=126464),
    "llada-1b": Sizes("llada", layers=22, hidden=2048, heads=32, kv_heads=4, ff=5634, vocab=126464),
    "dream-7b": Sizes("dream", layers=28, hidden=3584, heads=28, kv_heads=4, ff=18944, vocab=152064),
    "sdar-4b": Sizes("sdar", layers=36, hidden=2560, heads=32, kv_heads=8, ff=9728, vocab=151936, head_dim=128),
    "sdar-8b": Sizes("sdar", layers=36, hidden=4096, heads=32, kv_heads=8, ff=12288, vocab=151936, head_dim=128),
    "llada2-mini": Sizes(
        "llada2_moe", layers=20, hidden=2048, heads=16, kv_heads=4, ff=5120, vocab=157184, head_dim=128
    ),
    "fast-dllm-v2-7b": Sizes("fast_dllm_v2", layers=28, hidden=3584, heads=28, kv_heads=4, ff=18944, vocab=152064),
    "stable-diffcoder-8b": Sizes(
        "stable_diffcoder", layers=32, hidden=4096, heads=32, kv_heads=8, ff=14336, vocab=155136
    ),
    "illada-8b": Sizes("illada", layers=32, hidden=4096, heads=32, kv_heads=8, ff=14336, vocab=155136),
}
"""Sizes from config.json of the checkpoints, of SDAR-8B from that of Qwen3-8B, of LLaDA 1B from the LLaDA paper, of
iLLaDA from its model card."""


def check_bits(sizes: Sizes, q_bits: int | None) -> None:
    """Raise ConfigError if this shape cannot be quantized to `q_bits`."""
    if q_bits is None:
        return
    if q_bits not in BITS:
        raise ConfigError(f"--q-bits must be one of {', '.join(map(str, BITS))}, not {q_bits}.")
    for name, width in (("hidden", sizes.hidden), ("ff", sizes.ff)):
        if width % GROUP:
            raise ConfigError(
                f"Cannot quantize --{name} {width}: it is not a multiple of the group size {GROUP}. "
                "Choose another shape, or leave out --q-bits."
            )


def skeleton(sizes: Sizes, q_bits: int | None = None) -> Any:
    """Return a model with lazy random weights: bfloat16, or `q_bits` bits in groups of 64. Raises ConfigError."""
    check_bits(sizes, q_bits)
    kind, arguments = get_model_classes(sizes.config())
    model = kind(arguments.from_dict(sizes.config()))  # type: ignore[attr-defined]
    model.set_dtype(mx.bfloat16)
    if q_bits is not None:
        nn.quantize(model, GROUP, q_bits)
    return model


def random_model(sizes: Sizes, q_bits: int | None = None) -> Any:
    """Return a model with random weights, computed layer by layer to limit the memory for floats before quantization.

    On a CPU a small model without `q_bits` is float32, like a loaded model. Raises ConfigError, and MemoryLimitError if
    the weights do not fit in memory.
    """
    model = skeleton(sizes, q_bits)
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    if on_cpu and q_bits is None and get_total_parameters(model) < SMALL:
        model.set_dtype(mx.float32)
    needed, limit = nbytes(model), memory_limit()
    if needed > limit:
        raise MemoryLimitError(
            f"Weights of this shape need {needed / 1e9:.1f} GB, but this machine can use {limit / 1e9:.1f} GB. Choose "
            "fewer bits (--q-bits) or a smaller shape."
        )
    keep_in_memory()
    for _, layer in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module):
        mx.eval(layer.parameters())
        mx.clear_cache()
    return model
