"""Models of a given shape with random weights, so that a machine can be measured without a download."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import get_total_parameters

from d3mlx.checkpoints.checkpoint import SMALL
from d3mlx.checkpoints.loader import keep_in_memory, memory_limit, nbytes
from d3mlx.errors import ConfigError, MemoryLimitError
from d3mlx.models import family_named, get_model_classes
from d3mlx.quantization import MODES

GROUP = MODES["affine"].groups[0]
"""Weights that share a scale, as `d3mlx convert -q` packs them."""

BITS = sorted(MODES["affine"].bits)
CONTEXT = 32768
"""Positions that a synthetic model can hold; no cost depends on it."""


@dataclass(frozen=True)
class Sizes:
    """What decides the cost of a forward. ff: width inside the MLP. Raises ConfigError if the sizes do not fit."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ff: int
    vocab: int

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 4 if field.name == "vocab" else 1
            if field.name != "family" and getattr(self, field.name) < least:
                raise ConfigError(f"--{field.name.replace('_', '-')} must be {least} or more.")
        if self.hidden % (2 * self.heads) or self.heads % self.kv_heads:
            raise ConfigError(
                f"--hidden {self.hidden} must be an even number times --heads {self.heads}, and --heads a multiple of "
                f"--kv-heads {self.kv_heads}."
            )

    def config(self) -> dict[str, Any]:
        """A config.json of this shape; the two highest ids are the mask and the end of the answer."""
        sizes: dict[str, Any] = family_named(self.family).config_of(self, CONTEXT)
        return sizes | {"mask_token_id": self.vocab - 1, "eos_token_id": self.vocab - 2}


SHAPES = {
    "llada-8b": Sizes("llada", layers=32, hidden=4096, heads=32, kv_heads=32, ff=12288, vocab=126464),
    "llada-1b": Sizes("llada", layers=22, hidden=2048, heads=32, kv_heads=4, ff=5634, vocab=126464),
    "dream-7b": Sizes("dream", layers=28, hidden=3584, heads=28, kv_heads=4, ff=18944, vocab=152064),
}
"""LLaDA-8B and Dream-7B as in their config.json, LLaDA 1B as in the appendix of the LLaDA paper."""


def check_bits(sizes: Sizes, q_bits: int | None) -> None:
    if q_bits is None:
        return
    if q_bits not in BITS:
        raise ConfigError(f"--q-bits is one of {', '.join(map(str, BITS))}, not {q_bits}.")
    for name, width in (("hidden", sizes.hidden), ("ff", sizes.ff)):
        if width % GROUP:
            raise ConfigError(
                f"Weights are quantized in groups of {GROUP} along a row, which --{name} {width} is no multiple of; "
                "choose another shape, or leave out --q-bits."
            )


def skeleton(sizes: Sizes, q_bits: int | None = None) -> Any:
    """The model with random weights of which none is computed yet: bfloat16, or `q_bits` in groups of 64.

    Raises ConfigError.
    """
    check_bits(sizes, q_bits)
    kind, arguments = get_model_classes(sizes.config())
    model = kind(arguments.from_dict(sizes.config()))  # type: ignore[attr-defined]
    model.set_dtype(mx.bfloat16)
    if q_bits is not None:
        nn.quantize(model, GROUP, q_bits)
    return model


def random_model(sizes: Sizes, q_bits: int | None = None) -> Any:
    """The model with random weights, made one layer at a time: the floats of a quantized one never exist together.

    On a CPU a small model without `q_bits` is float32, as one that is loaded is. Raises ConfigError, and
    MemoryLimitError if this machine cannot hold the weights.
    """
    model = skeleton(sizes, q_bits)
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    if on_cpu and q_bits is None and get_total_parameters(model) < SMALL:
        model.set_dtype(mx.float32)
    needed, limit = nbytes(model), memory_limit()
    if needed > limit:
        raise MemoryLimitError(
            f"Weights of this shape need {needed / 1e9:.1f} GB and this machine can give {limit / 1e9:.1f} GB; lower "
            "--q-bits, or choose a smaller shape."
        )
    keep_in_memory()
    for _, layer in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module):
        mx.eval(layer.parameters())
        mx.clear_cache()
    return model
