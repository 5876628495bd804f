"""Contents of a cache, and requests that start from the cache of an earlier request."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import generate, load
from d3mlx.cache import KVCache, RowIndex
from d3mlx.canvas import Canvas
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.selective import Selective
from d3mlx.engine import follow, step
from d3mlx.errors import ConfigError
from d3mlx.generation import Generation
from d3mlx.quantization import KVQuantization
from d3mlx.request import Request
from tests.examples import QUESTION
from tests.golden.cases import model


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(
    "preset",
    [Selective(threshold=2.5, rows=16), D3LLM(threshold=2.5), FastDLLM(threshold=0.2), FastDLLM("prefix")],
)
def test_reuse_starts_where_the_cache_ends(family: str, preset: Any) -> None:
    """With a single layer, keys and values depend only on their own token, so reuse is exact for these models too."""
    single = model.__wrapped__(family)
    single.model.layers = single.model.layers[:1]
    decoder = preset.build(family)
    rng = np.random.default_rng(3)
    start = rng.integers(0, 240, 20).tolist()

    def request(prompt: list[int], cache: KVCache | None = None) -> Request:
        return Request(single, Canvas.for_prompt(prompt, 24, 250), decoder, cache=cache)

    earlier = request([*start, 1, 2, 3])
    list(follow(single, earlier))
    later = request([*start, 9, 8], earlier.cache)
    assert later.cache.length == 20
    steps = list(follow(single, later))
    expected = request([*start, 9, 8])
    exact_steps = list(follow(single, expected))
    assert later.canvas.tokens.tolist() == expected.canvas.tokens.tolist()
    assert [each.positions.tolist() for each in steps] == [each.positions.tolist() for each in exact_steps]
    assert exact_steps[0].rows - steps[0].rows == 20
    assert (steps[-1].stats.prefill_rows, exact_steps[-1].stats.prefill_rows) == (2, 22)


def test_a_complete_prompt_may_be_in_the_cache() -> None:
    """At least one row remains to compute. A shifted family also computes the row that predicts the first mask."""
    for family, rest in (("llada", 0), ("dream", 1)):
        preset = Selective(rows=16).build(family)
        prompt = list(range(10))
        earlier = Request(model(family), Canvas.for_prompt(prompt, 5, 250), preset)
        list(follow(model(family), earlier))
        later = Request(model(family), Canvas.for_prompt(prompt, 5, 250), preset, cache=earlier.cache)
        assert later.cache.length == 10 - rest
        assert len(list(follow(model(family), later))) >= 1


def test_one_cache_serves_many_requests() -> None:
    """Requests that start from the same cache, together or one after another, change neither it nor each other."""
    preset = Selective(threshold=2.5, rows=16).build("llada")
    family = model("llada")
    start = np.random.default_rng(3).integers(0, 240, 20).tolist()
    earlier = Request(family, Canvas.for_prompt([*start, 1], 24, 250), preset)
    list(follow(family, earlier))
    keys = np.array(earlier.cache.layers[0].arrays[0])  # type: ignore[attr-defined]

    def later(seed: int) -> Request:
        return Request(family, Canvas.for_prompt([*start, seed], 24, 250), preset, cache=earlier.cache)

    alone = []
    for seed in (5, 6, 7):
        each = later(seed)
        list(follow(family, each))
        alone.append(each.canvas.tokens.tolist())
    together = [later(seed) for seed in (5, 6, 7)]
    while live := [each for each in together if not each.done]:
        step(family, live)
    assert [each.canvas.tokens.tolist() for each in together] == alone
    assert np.array_equal(np.array(earlier.cache.layers[0].arrays[0]), keys)  # type: ignore[attr-defined]


def test_generate_takes_the_cache_of_an_earlier_answer() -> None:
    small, tokenizer = load("embedded")
    chat = [{"role": "user", "content": QUESTION}]
    first = Generation(small, tokenizer, chat)
    list(first)
    again = generate(small, tokenizer, chat, approximate_cache=first.request.cache)
    assert again.stats.prefill_rows == 0
    assert again.text == first.text
    with pytest.raises(ConfigError, match="another model"):
        generate(*load("teacher"), chat, approximate_cache=first.request.cache)
    with pytest.raises(ConfigError, match="keeps no cache"):
        generate(small, tokenizer, chat, D3LLM("none"), approximate_cache=first.request.cache)
    with pytest.raises(ConfigError, match="quantized"):
        generate(small, tokenizer, chat, D3LLM(kv_bits=8), approximate_cache=first.request.cache)


@pytest.mark.parametrize("quantization", [None, KVQuantization(8, 32)])
def test_contents_of_a_cache(quantization: KVQuantization | None) -> None:
    """Ids, ages and length follow the writes. `trim` drops a tail, `match` measures the common start."""
    cache = KVCache(1, quantization=quantization)
    rng = np.random.default_rng(0)
    keys, hidden = mx.array(rng.normal(size=(1, 1, 6, 32)).astype(np.float32)), mx.zeros((1, 6, 4))

    def write(positions: list[int], length: int, tokens: list[int]) -> None:
        rows = RowIndex(np.array(positions, np.int32), length)
        (layer,) = cache.open(rows, np.array(tokens, np.int32))
        part = keys[:, :, : len(positions)]
        layer.attend(part, mx.stack([part, part]), 1.0)
        cache.write_hidden(rows, hidden[:, : len(positions)] + len(cache.tokens))

    write([0, 1, 2, 3], 4, [5, 6, 7, 8])
    write([1, 4, 5], 6, [60, 9, 10])
    assert (cache.length, cache.forwards) == (6, 2)
    assert cache.tokens.tolist() == [5, 60, 7, 8, 9, 10]
    assert cache.written.tolist() == [0, 1, 0, 0, 1, 1]
    assert [cache.match(ids) for ids in ([5, 60, 7], [5, 6, 7], [], [5, 60, 7, 8, 9, 10, 11], [1])] == [3, 1, 0, 6, 0]
    longer, cache = cache, cache.trim(3)
    (layer,) = cache.layers
    assert cache.tokens.tolist() == [5, 60, 7]
    assert cache.hidden is not None
    assert cache.hidden.shape == (1, 3, 4)
    assert {array.shape[3] for array in layer.arrays} == {3}  # type: ignore[attr-defined]
    write([3], 4, [11])
    assert cache.tokens.tolist() == [5, 60, 7, 11]
    assert longer.tokens.tolist() == [5, 60, 7, 8, 9, 10]
    assert {array.shape[3] for array in longer.layers[0].arrays} == {256}  # type: ignore[attr-defined]
