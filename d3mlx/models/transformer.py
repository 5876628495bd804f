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
from mlx_lm.models.rope_utils import initialize_rope

from d3mlx.errors import CheckpointError
from d3mlx.kernels.refresh_rows import refresh_rows

Positions = int | mx.array
"""The positions of a forward's rows: the first of consecutive positions, or one position per row, int32 [R]."""


class LayerCache(Protocol):
    """The keys and values that one attention layer attends to."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Return attention [B, H, R, head_dim] of queries [B, H, R, head_dim].

        keys, values: [B, K, R, head_dim], those of the same rows, with rotated keys. A cache also attends to the rows
        of earlier forwards.
        """
        ...


MOST = {"layers": 1_000, "hidden": 1 << 17, "ff": 1 << 20, "heads": 4_096, "head_dim": 4_096, "context": 1 << 26}
"""Upper bounds of sizes. A larger size means that config.json is damaged, and building the model would take minutes."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer.

    ff: width of the MLP. context: largest number of positions. qk_norm: whether queries and keys of a head are
    normalized before their rotation (Qwen3).
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
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


class Uncached:
    """Attention among the rows of the current forward only."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        return attention(queries, keys, values, scale)


UNCACHED = Uncached()


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """Return silu(gate) * up, without mx.compile, which needs a C++ compiler on the CPU backend."""
    return gate * mx.sigmoid(gate) * up


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.query_width, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_width, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_width, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(shape.query_width, shape.hidden, bias=False)
        if shape.qk_norm:
            self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps)
            self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps)
        self.qk_norm = shape.qk_norm
        self.rope = initialize_rope(
            shape.head_dim,
            base=shape.rope_theta,
            traditional=False,
            scaling_config=shape.rope_scaling,
            max_position_embeddings=shape.context,
        )

    def __call__(self, x: mx.array, positions: Positions, cache: LayerCache) -> mx.array:
        batch, rows, _ = x.shape

        def split(projected: mx.array, heads: int) -> mx.array:
            return projected.reshape(batch, rows, heads, self.head_dim).transpose(0, 2, 1, 3)

        queries, keys = split(self.q_proj(x), self.heads), split(self.k_proj(x), self.kv_heads)
        values = split(self.v_proj(x), self.kv_heads)
        if self.qk_norm:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        if isinstance(positions, int):
            queries, keys = self.rope(queries, offset=positions), self.rope(keys, offset=positions)
        else:
            queries, keys, values = refresh_rows(queries, keys, values, positions, self.rope)
        out = cache.attend(queries, keys, values, self.head_dim**-0.5)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, rows, -1))


class MLP(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ff, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ff, bias=False)
        self.down_proj = nn.Linear(shape.ff, shape.hidden, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class TransformerBlock(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)

    def __call__(self, x: mx.array, positions: Positions, cache: LayerCache = UNCACHED) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), positions, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """The embedding, the transformer blocks and the final norm."""

    def __init__(self, shape: Shape, vocab: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, shape.hidden)
        self.layers = [TransformerBlock(shape) for _ in range(shape.layers)]
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.eps)

    def __call__(
        self,
        ids: mx.array,
        positions: Positions = 0,
        cache: Sequence[LayerCache] | None = None,
        embedding_scale: float = 1.0,
    ) -> mx.array:
        """Return the hidden rows [B, R, hidden] of ids [B, R] at `positions`, with the final norm applied."""
        x = self.embed_tokens(ids)
        if embedding_scale != 1.0:
            x = x * embedding_scale
        for i, layer in enumerate(self.layers):
            x = layer(x, positions, cache[i] if cache is not None else UNCACHED)
        return self.norm(x)
