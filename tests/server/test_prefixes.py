"""The caches of earlier requests: complete blocks only, and the one that was used longest ago is dropped first."""

from __future__ import annotations

from pathlib import Path

from d3mlx import Generation, load
from d3mlx.server.prefixes import Prefixes, bytes_of
from tests.replicas import sdar_chat


def test_the_oldest_cache_is_dropped(tmp_path: Path) -> None:
    model, tokenizer = load(sdar_chat(tmp_path))
    caches = []
    for letter in "abc":
        generation = Generation(model, tokenizer, letter * 40, max_tokens=4)
        list(generation)
        caches.append(generation.request.cache)
    prompts = [tokenizer.encode(letter * 40) for letter in "abc"]
    size = caches[0].block_size or 1

    everything = Prefixes(1 << 30)
    for cache in caches:
        everything.add(cache)
    found = everything.best(prompts[1])
    assert found is not None and found.length % size == 0 and found.match_blocks(prompts[1], size) == 40
    assert everything.best(tokenizer.encode("d" * 40)) is None

    # There is room for two. The first was used again, so the second is dropped.
    two = Prefixes(2 * bytes_of(found))
    two.add(caches[0])
    two.add(caches[1])
    assert two.best(prompts[0]) is not None
    two.add(caches[2])
    assert [two.best(prompt) is not None for prompt in prompts] == [True, False, True]
    assert two.nbytes <= two.limit

    # A longer conversation replaces its beginning.
    longer = Generation(model, tokenizer, "a" * 80, max_tokens=4)
    list(longer)
    replaced = Prefixes(1 << 30)
    replaced.add(caches[0].trim(20))
    replaced.add(longer.request.cache)
    assert len(replaced.caches) == 1
    # One that is larger than the limit is not kept.
    small = Prefixes(1)
    small.add(caches[0])
    assert small.nbytes == 0 and not small.caches
