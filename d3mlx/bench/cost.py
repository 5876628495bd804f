"""Theoretical cost of a forward: bytes read, and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten


@dataclass(frozen=True)
class Cost:
    """Cost of one forward that computes the head for all rows.

    weight_bytes: all weights as stored, with the head. The embedding counts only if it is tied to the head, because
    otherwise a forward reads only a few of its rows. cache_bytes: K/V of the positions attended to. body_flop,
    head_flop, attention_flop: multiplications and additions per row, of projections, head, and products with K and V.
    """

    weight_bytes: int
    cache_bytes: int
    body_flop: int
    head_flop: int
    attention_flop: int

    @property
    def nbytes(self) -> int:
        """Return the number of bytes that a forward reads."""
        return self.weight_bytes + self.cache_bytes

    @property
    def flop_per_row(self) -> int:
        """Return the floating-point operations per row."""
        return self.body_flop + self.head_flop + self.attention_flop


def cost(model: Any, context: int) -> Cost:
    """Return the cost of one forward of `model` over `context` positions. The weights need not be loaded."""
    shape, width = model.args.shape(), model.args.logit_width
    products = 2 * shape.hidden * (shape.query_width + shape.kv_width) + 3 * shape.hidden * shape.ff
    tied = not hasattr(model, "lm_head")
    weights = tree_flatten(model.parameters())
    read = [value for name, value in weights if tied or not name.startswith("model.embed_tokens.")]
    float_bytes = float_dtype(model).size
    return Cost(
        weight_bytes=sum(int(value.nbytes) for value in read),
        cache_bytes=2 * shape.layers * shape.kv_width * float_bytes * context,
        body_flop=2 * shape.layers * products,
        head_flop=2 * shape.hidden * width,
        attention_flop=4 * shape.layers * shape.query_width * context,
    )


def float_dtype(model: Any) -> mx.Dtype:
    """Return the dtype of activations and K/V. It is the dtype of the norms, which are never quantized."""
    dtype: mx.Dtype = model.model.norm.weight.dtype
    return dtype


def precision(model: nn.Module) -> str:
    """Return a short description of the weights: "bfloat16", "4-bit", or "3- and 6-bit"."""
    bits = {
        int(layer.bits)
        for _, layer in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
        if hasattr(layer, "bits")
    }
    if not bits:
        return str(float_dtype(model)).rsplit(".", 1)[-1]
    return "- and ".join(map(str, sorted(bits))) + "-bit"
