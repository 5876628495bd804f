"""Prefixes that several requests of a block-causal model share: their keys and values are computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import mlx.core as mx

from d3mlx.cache import CachedLayer, KVCache


class Prefixes:
    """Caches of finished requests, at most `limit` bytes. The one that was used longest ago is dropped first.

    Only complete blocks are kept, because their keys and values are final.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.caches: OrderedDict[bytes, KVCache] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all caches."""
        return sum(map(bytes_of, self.caches.values()))

    def best(self, tokens: Sequence[int]) -> KVCache | None:
        """Return the cache with the most complete blocks in common with `tokens`, ids [P], or None."""
        lengths = {key: cache.match_blocks(tokens, cache.block_size or 1) for key, cache in self.caches.items()}
        key = max(lengths, key=lambda key: lengths[key], default=None)
        if key is None or not lengths[key]:
            return None
        self.caches.move_to_end(key)
        return self.caches[key]

    def add(self, cache: KVCache) -> None:
        """Keep the complete blocks of a finished request. Caches that are a beginning of it are dropped."""
        kept = cache.trim(cache.match_blocks(cache.tokens, cache.block_size or 1))
        if not kept.length:
            return
        for layer in kept.layers:
            if isinstance(layer, CachedLayer):
                # A slice would keep the whole array in memory.
                layer.arrays = [mx.contiguous(array) for array in layer.arrays]
        kept.hidden = None if kept.hidden is None else mx.contiguous(kept.hidden)
        mx.eval(arrays_of(kept))
        content = kept.tokens.tobytes()
        for key in [key for key in self.caches if content.startswith(key)]:
            del self.caches[key]
        self.caches[content] = kept
        while self.caches and self.nbytes > self.limit:
            self.caches.popitem(last=False)


def arrays_of(cache: KVCache) -> list[mx.array]:
    """Return all arrays of a cache."""
    arrays = [array for layer in cache.layers if isinstance(layer, CachedLayer) for array in layer.arrays]
    return arrays if cache.hidden is None else [*arrays, cache.hidden]


def bytes_of(cache: KVCache) -> int:
    """Return the bytes of a cache."""
    return sum(int(array.nbytes) for array in arrays_of(cache))
