"""Theoretical cost of a forward: bytes read, and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from d3mlx.models.experts import Experts


@dataclass(frozen=True)
class Cost:
    """Cost of one forward that computes the head for all rows.

    weight_bytes: all weights as stored, with the head, but without the experts of which a row uses a few. The embedding
    counts only if it is tied to the head, because otherwise a forward reads only a few of its rows. cache_bytes: K/V of
    the positions attended to. body_flop, head_flop, attention_flop: multiplications and additions per row, of
    projections, head, and products with K and V. expert_bytes: all such experts as stored. experts: their numbers.
    """

    weight_bytes: int
    cache_bytes: int
    body_flop: int
    head_flop: int
    attention_flop: int
    expert_bytes: int = 0
    experts: Experts | None = None

    def nbytes(self, rows: float) -> float:
        """Return the expected number of bytes that a forward of `rows` rows reads, if all experts are equally likely.

        Real rows of a block choose similar experts, so a forward may read less.
        """
        share = self.experts.distinct(rows) / self.experts.count if self.experts else 0.0
        return self.weight_bytes + self.cache_bytes + share * self.expert_bytes

    @property
    def flop_per_row(self) -> int:
        """Return the floating-point operations per row."""
        return self.body_flop + self.head_flop + self.attention_flop


def cost(model: Any, context: int) -> Cost:
    """Return the cost of one forward of `model` over `context` positions. The weights need not be loaded."""
    shape, width = model.args.shape(), model.args.logit_width
    experts = shape.experts
    projections = 2 * shape.hidden * (shape.query_width + shape.kv_width) * shape.layers
    mixed = 0 if experts is None else shape.layers - experts.dense
    products = projections + 3 * shape.hidden * shape.ff * (shape.layers - mixed)
    if experts is not None:
        of_layer = 3 * (experts.chosen * experts.width + experts.shared) + experts.count
        products += shape.hidden * of_layer * mixed
    tied = not hasattr(model, "lm_head")
    weights = tree_flatten(model.parameters())
    read = [(name, value) for name, value in weights if tied or not name.startswith("model.embed_tokens.")]
    routed = sum(int(value.nbytes) for name, value in read if ".switch_mlp." in name)
    float_bytes = float_dtype(model).size
    return Cost(
        weight_bytes=sum(int(value.nbytes) for _, value in read) - routed,
        cache_bytes=2 * shape.layers * shape.kv_width * float_bytes * context,
        body_flop=2 * products,
        head_flop=2 * shape.hidden * width,
        attention_flop=4 * shape.layers * shape.query_width * context,
        expert_bytes=routed,
        experts=experts,
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
