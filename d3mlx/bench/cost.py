"""Theoretical cost of a forward: bytes read, and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from d3mlx.bench.kernels import Matrix
from d3mlx.models.experts import Experts
from d3mlx.models.transformer import Shape


@dataclass(frozen=True)
class Cost:
    """Cost of one forward that computes the head for all rows.

    weight_bytes: all weights as stored, with the head, but without the experts of which a row uses a few. The embedding
    counts only if it is tied to the head, because otherwise a forward reads only a few of its rows. cache_bytes: K/V of
    the positions attended to. body_flop, head_flop, attention_flop: multiplications and additions per row, of
    projections, head, and products with K and V. layers: their number. quantized: whether matrices have fewer than 16
    bits. matrices: those that every row uses, with the head. expert_bytes: all experts as stored. experts: their
    numbers.
    """

    weight_bytes: int
    cache_bytes: int
    body_flop: int
    head_flop: int
    attention_flop: int
    layers: int
    quantized: bool
    matrices: tuple[Matrix, ...]
    expert_bytes: int = 0
    experts: Experts | None = None

    def nbytes(self, rows: float) -> float:
        """Return the expected number of bytes that a forward of `rows` rows reads, if all experts are equally likely.

        Real rows of a block choose similar experts, so a forward may read less.
        """
        share = self.experts.distinct(rows) / self.experts.count if self.experts else 0.0
        return self.weight_bytes + self.cache_bytes + share * self.expert_bytes

    @property
    def bits(self) -> float:
        """Return the stored bits per weight of the matrices, with scales and norms."""
        return 8 * self.weight_bytes / sum(matrix.size for matrix in self.matrices)

    @property
    def expert_flop(self) -> int:
        """Return the floating-point operations per row in experts of which a row uses a few."""
        return self.body_flop + self.head_flop - 2 * sum(matrix.size for matrix in self.matrices)

    @property
    def flop_per_row(self) -> int:
        """Return the floating-point operations per row."""
        return self.body_flop + self.head_flop + self.attention_flop


def cost(model: Any, context: int) -> Cost:
    """Return the cost of one forward of `model` over `context` positions. The weights need not be loaded."""
    shape = model.args.shape()
    experts = shape.experts
    matrices = matrices_of(shape, model.args.logit_width)
    products = sum(matrix.size for matrix in matrices[:-1])
    if experts is not None:
        products += 3 * shape.hidden * experts.width * experts.chosen * (shape.layers - experts.dense)
    tied = not hasattr(model, "lm_head")
    weights = tree_flatten(model.parameters())
    read = [(name, value) for name, value in weights if tied or not name.startswith("model.embed_tokens.")]
    routed = sum(int(value.nbytes) for name, value in read if ".switch_mlp." in name)
    float_bytes = float_dtype(model).size
    return Cost(
        weight_bytes=sum(int(value.nbytes) for _, value in read) - routed,
        cache_bytes=2 * shape.layers * shape.kv_width * float_bytes * context,
        body_flop=2 * products,
        head_flop=2 * matrices[-1].size,
        attention_flop=4 * shape.layers * shape.query_width * context,
        layers=shape.layers,
        quantized=bool(bits_of(model)),
        matrices=matrices,
        expert_bytes=routed,
        experts=experts,
    )


def matrices_of(shape: Shape, width: int) -> tuple[Matrix, ...]:
    """Return the matrices that every row uses; the last one is the head with `width` outputs."""
    experts, hidden = shape.experts, shape.hidden
    plain = shape.layers if experts is None else experts.dense
    matrices = [
        Matrix(hidden, shape.query_width, shape.layers),
        Matrix(hidden, shape.kv_width, 2 * shape.layers),
        Matrix(shape.query_width, hidden, shape.layers),
        Matrix(hidden, shape.ff, 2 * plain),
        Matrix(shape.ff, hidden, plain),
    ]
    if experts is not None:
        mixed = shape.layers - plain
        matrices += [Matrix(hidden, experts.shared, 2 * mixed), Matrix(experts.shared, hidden, mixed)]
        matrices.append(Matrix(hidden, experts.count, mixed))
    return (*(matrix for matrix in matrices if matrix.size), Matrix(hidden, width))


def float_dtype(model: Any) -> mx.Dtype:
    """Return the dtype of activations and K/V. It is the dtype of the norms, which are never quantized."""
    dtype: mx.Dtype = model.model.norm.weight.dtype
    return dtype


def precision(model: nn.Module) -> str:
    """Return a short description of the weights: "bfloat16", "4-bit", or "3- and 6-bit"."""
    bits = bits_of(model)
    if not bits:
        return str(float_dtype(model)).rsplit(".", 1)[-1]
    return "- and ".join(map(str, sorted(bits))) + "-bit"


def bits_of(model: nn.Module) -> set[int]:
    """Return the bit widths of the quantized layers; empty if there are none."""
    return {
        int(layer.bits)
        for _, layer in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
        if hasattr(layer, "bits")
    }
