"""The transformer that all families share: RMSNorm, RoPE, grouped attention, SwiGLU.

It has no causal mask: without a cache, each position attends to all earlier and later positions. A cache decides which
positions the rows of a block-causal model attend to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx_lm.models import activations
from mlx_lm.models.rope_utils import initialize_rope

from d3mlx.errors import CheckpointError
from d3mlx.kernels.dispatch import on_any_gpu, on_cpu
from d3mlx.kernels.refresh_rows import Rotary, Rotation, refresh_rows
from d3mlx.models import cpu
from d3mlx.models.experts import Experts, MoE
from d3mlx.models.joined import Joined

Positions = int | npt.NDArray[np.int32]
"""The positions of a forward's rows: the first of consecutive positions, or one position per row, int32 [R]."""


class LayerCache(Protocol):
    """The keys and values that one attention layer attends to."""

    def attend(self, queries: mx.array, rows: mx.array, scale: float) -> mx.array:
        """Return attention [B, H, R, head_dim] of queries [B, H, R, head_dim].

        rows: rotated keys and values of the same rows, [2, B, K, R, head_dim]. A cache also attends to the rows of
        earlier forwards.
        """
        ...


MOST = {"layers": 1_000, "hidden": 1 << 17, "ff": 1 << 20, "heads": 4_096, "head_dim": 4_096, "context": 1 << 26}
"""Upper bounds of sizes. A larger size means that config.json is damaged, and building the model would take minutes."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer.

    ff: width of the MLP. context: largest number of positions. qk_norm: whether queries and keys of a head are
    normalized before their rotation (Qwen3). rotary_dims: how many numbers of a head are rotated; 0 for all. fused_qkv:
    a checkpoint stores the projections of queries, keys and values as one. experts: the mixture of experts of most
    layers, or None.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    eps: float
    rope_theta: float
    qkv_bias: bool
    context: int
    rope_scaling: dict[str, float | str] | None = None
    qk_norm: bool = False
    rotary_dims: int = 0
    fused_qkv: bool = False
    experts: Experts | None = None

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if (value := getattr(self, name)) > most:
                raise CheckpointError(f"A model with {name} = {value:,} is too large. The limit is {most:,}.")

    @property
    def query_width(self) -> int:
        """Return the width of all query heads of a row, which may differ from `hidden`."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Return the width of all key heads of a row, which is also that of all value heads."""
        return self.kv_heads * self.head_dim


def attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None = None
) -> mx.array:
    """Return the attention [B, H, R, head_dim] of queries over keys and values [B, K, L, head_dim].

    Query head h uses key and value head h // (H / K). mask: bool [R, L], True where a query attends to a key; None for
    everywhere.
    """
    if on_cpu(queries):
        return cpu.attention(queries, keys, values, scale, mask)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


class Uncached:
    """Attention among the rows of the current forward only."""

    def attend(self, queries: mx.array, rows: mx.array, scale: float) -> mx.array:
        # Unpacking gives views; MLX copies for an index such as rows[0].
        keys, values = rows
        return attention(queries, keys, values, scale)


UNCACHED = Uncached()


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """Return silu(gate) * up: one compiled launch on a GPU. On a CPU, compiling needs a C++ compiler."""
    if on_any_gpu():
        compiled: mx.array = activations.swiglu(gate, up)
        return compiled
    if on_cpu(gate):
        return cpu.swiglu(gate, up)
    return gate * mx.sigmoid(gate) * up


def rope_of(shape: Shape) -> nn.Module:
    """Return the rotary embedding of a model of this shape."""
    return initialize_rope(
        shape.rotary_dims or shape.head_dim,
        base=shape.rope_theta,
        traditional=False,
        scaling_config=shape.rope_scaling,
        max_position_embeddings=shape.context,
    )


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        if shape.fused_qkv:
            self.qkv_proj = nn.Linear(shape.hidden, shape.query_width + 2 * shape.kv_width, bias=shape.qkv_bias)
        else:
            self.q_proj = nn.Linear(shape.hidden, shape.query_width, bias=shape.qkv_bias)
            self.k_proj = nn.Linear(shape.hidden, shape.kv_width, bias=shape.qkv_bias)
            self.v_proj = nn.Linear(shape.hidden, shape.kv_width, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(shape.query_width, shape.hidden, bias=False)
        if shape.qk_norm:
            self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps)
            self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps)
        self.qk_norm = shape.qk_norm
        self.joined = Joined()

    def join(self) -> None:
        """Compute queries, keys and values as one product from now on."""
        if "qkv_proj" not in self:
            self.joined.join([self.q_proj, self.k_proj, self.v_proj])

    def project(self, x: mx.array) -> list[mx.array]:
        """Return queries, keys and values of x, each [B, R, heads x head_dim]."""
        if "qkv_proj" not in self:
            return self.joined(x, [self.q_proj, self.k_proj, self.v_proj])
        width = self.heads * self.head_dim
        return list(mx.split(self.qkv_proj(x), [width, width + self.kv_heads * self.head_dim], axis=-1))

    def __call__(self, x: mx.array, rotation: Rotation, cache: LayerCache) -> mx.array:
        batch, rows, _ = x.shape

        def split(projected: mx.array, heads: int) -> mx.array:
            return projected.reshape(batch, rows, heads, self.head_dim).transpose(0, 2, 1, 3)

        queries, keys, values = self.project(x)
        queries, keys = split(queries, self.heads), split(keys, self.kv_heads)
        if self.qk_norm:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, fresh = refresh_rows(queries, keys, split(values, self.kv_heads), rotation)
        out = cache.attend(queries, fresh, self.head_dim**-0.5)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, rows, -1))


class MLP(nn.Module):
    def __init__(self, hidden: int, ff: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, ff, bias=False)
        self.up_proj = nn.Linear(hidden, ff, bias=False)
        self.down_proj = nn.Linear(ff, hidden, bias=False)
        self.joined = Joined()

    def join(self) -> None:
        """Compute gate and up as one product from now on."""
        self.joined.join([self.gate_proj, self.up_proj])

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(swiglu(*self.joined(x, [self.gate_proj, self.up_proj])))


def mlp_of(shape: Shape, layer: int) -> MLP | MoE:
    """Return the MLP of a layer, or its mixture of experts."""
    experts = shape.experts
    if experts is None or layer < experts.dense:
        return MLP(shape.hidden, shape.ff)
    return MoE(experts, shape.hidden, MLP(shape.hidden, experts.shared) if experts.shared else None, swiglu)


class TransformerBlock(nn.Module):
    def __init__(self, shape: Shape, layer: int):
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = mlp_of(shape, layer)
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)

    def join(self) -> None:
        """Compute projections with the same input as one product from now on."""
        self.self_attn.join()
        self.mlp.join()

    def __call__(
        self, x: mx.array, rotation: Rotation, cache: LayerCache = UNCACHED, kept: mx.array | None = None
    ) -> mx.array:
        """Return the rows after this layer, [B, R, D] for x [B, R, D].

        kept: int32 [N], indices into the flattened [B * R], or None. With it, the result is [1, N, D], and the MLP
        computes only these rows.
        """
        x = x + self.self_attn(self.input_layernorm(x), rotation, cache)
        if kept is not None:
            # A checkpointed layer has gradients for all its arguments, and an index has none.
            x = x.flatten(0, 1)[mx.stop_gradient(kept)][None]
        return x + self.mlp(self.post_attention_layernorm(x))


SUBMITTED_LAYERS = 4
"""A GPU gets the layers in groups of this many, so that it computes while the host prepares the others."""


def submits(layer: int) -> bool:
    """Return whether a forward gives the device its work so far after this layer."""
    return on_any_gpu() and layer % SUBMITTED_LAYERS == SUBMITTED_LAYERS - 1


class Transformer(nn.Module):
    """The embedding, the transformer blocks and the final norm."""

    def __init__(self, shape: Shape, vocab: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, shape.hidden)
        self.layers = [TransformerBlock(shape, i) for i in range(shape.layers)]
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.rotary = Rotary(rope_of(shape))

    def __call__(
        self,
        ids: mx.array,
        positions: Positions = 0,
        cache: Sequence[LayerCache] | None = None,
        embedding_scale: float = 1.0,
        kept: mx.array | None = None,
    ) -> mx.array:
        """Return the hidden rows [B, R, hidden] of ids [B, R] at `positions`, with the final norm applied.

        kept: int32 [N], indices into the flattened [B * R]. With it, the result is only these rows, [1, N, hidden].
        """
        x = self.embed_tokens(ids)
        if embedding_scale != 1.0:
            x = x * embedding_scale
        if isinstance(positions, int):
            positions = np.arange(positions, positions + ids.shape[1], dtype=np.int32)
        rotation = self.rotary.at(positions)
        for i, layer in enumerate(self.layers):
            last = i + 1 == len(self.layers)
            x = layer(x, rotation, cache[i] if cache is not None else UNCACHED, kept if last else None)
            if cache is not None and submits(i):
                mx.async_eval(x)  # type: ignore[no-untyped-call]
        return self.norm(x)
