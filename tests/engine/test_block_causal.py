"""Block-causal models: predictions equal those without a cache, for every length of a prompt, and blocks are reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import SDAR, FastDLLMv2, Generation, LLaDA2, Sampling, Selective, batch_generate, generate, preset
from d3mlx.cache import KVCache
from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.cache_policy import CHUNK
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.schedule import AlignedBlocks
from d3mlx.engine import follow, step
from d3mlx.errors import ConfigError, PromptError
from d3mlx.kernels.dispatch import on_device
from d3mlx.request import Request, Step
from tests.golden.cases import model

SIZE = 8
MASK = 250
ENDS = (3, 4)
DECODERS = {
    "sdar": SDAR(threshold=0.5, block_size=SIZE).build("sdar"),
    "sdar, separate commits": SDAR(threshold=0.5, block_size=SIZE, commits="separate").build("sdar"),
    "llada2_moe": LLaDA2(threshold=0.5, block_size=SIZE).build("llada2_moe"),
    "llada2_moe, editing": LLaDA2(threshold=0.5, editing_threshold=0.3, block_size=SIZE).build("llada2_moe"),
    "fast_dllm_v2": FastDLLMv2(threshold=0.5, block_size=SIZE, sub_block_size=4).build("fast_dllm_v2"),
}


@dataclass(frozen=True)
class Masked:
    """Attention of a complete sequence in which a row sees the blocks up to its own."""

    mask: mx.array

    def attend(self, queries: mx.array, rows: mx.array, scale: float) -> mx.array:
        return mx.fast.scaled_dot_product_attention(queries, rows[0], rows[1], scale=scale, mask=self.mask)


def exact(family: str, tokens: Ints) -> Any:
    """Return logits [L, V] of complete blocks of tokens, computed without a cache and with a block-causal mask."""
    blocks = np.arange(len(tokens)) // SIZE
    masked = Masked(on_device(blocks[None, :] <= blocks[:, None]))
    net = model(family)
    return np.array(net.logits(net.hidden(on_device(tokens)[None], 0, [masked] * len(net.layers)))[0])


def canvas_of(prompt: Sequence[int], new: int, size: int = SIZE) -> Canvas:
    return Canvas.for_prompt(prompt, new, MASK, ENDS, block_size=size)


def talk(decoder: str, prompt: Sequence[int], new: int, cache: KVCache | None = None) -> tuple[Request, list[Step]]:
    """Decode a prompt and compare every prediction with `exact`. Return the request and its steps."""
    family = decoder.split(",")[0]
    canvas = canvas_of(prompt, new)
    request = Request(model(family), canvas, DECODERS[decoder], cache=cache)
    steps, before = [], canvas.tokens.copy()
    for each in follow(model(family), request):
        steps.append(each)
        if len(each.eligible):
            end = -(-(int(each.eligible[-1]) + 1) // SIZE) * SIZE
            logits = exact(family, before[:end])
            logits[:, MASK] = -np.inf
            source = np.maximum(each.eligible - model(family).shift, 0)
            assert (logits[source].argmax(axis=1) == each.guesses).all()
        before = canvas.tokens.copy()
    return request, steps


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("length", range(1, SIZE + 2))
def test_cached_equals_recomputed_and_a_second_turn_reuses_blocks(length: int, decoder: str) -> None:
    """The second prompt begins with all tokens of the first turn. Only blocks that were not complete are computed."""
    rng = np.random.default_rng(length)
    first, steps = talk(decoder, rng.integers(5, 240, length + SIZE).tolist(), 13)
    assert steps[-1].stats.rows == sum(each.rows for each in steps)
    assert not any(each.kind == "refresh" for each in steps)
    prompt = [*first.canvas.tokens[: first.canvas.holes[0].limit].tolist(), *rng.integers(5, 240, 6).tolist()]
    fresh, expected = talk(decoder, prompt, 9)
    reused, steps = talk(decoder, prompt, 9, first.cache)
    known = len(prompt) - steps[-1].stats.prefill_rows
    # Every block is known except the last one, of which no forward saw all tokens, unless the last one edited nothing.
    end = first.canvas.holes[0].answer_end
    assert known == (end if first.drafts and not len(steps[-1].written.positions) else end - 1) // SIZE * SIZE
    assert reused.canvas.tokens.tolist() == fresh.canvas.tokens.tolist()
    assert steps[-1].stats.rows < expected[-1].stats.rows
    decided = [each.positions.tolist() for each in expected if len(each.positions)]
    assert [each.positions.tolist() for each in steps if len(each.positions)] == decided


@pytest.mark.parametrize("decoder", DECODERS)
def test_requests_get_the_same_tokens_together(decoder: str) -> None:
    """Prompts of every length modulo the block size share forwards, some of them with reused blocks."""
    family, rng = decoder.split(",")[0], np.random.default_rng(1)
    prompts = [rng.integers(5, 240, size).tolist() for size in (33, 5, *range(8, 16))]
    earlier = talk(decoder, prompts[0], 8)[0].cache
    caches = [earlier, None] * 5
    alone = [talk(decoder, prompt, 20, cache) for prompt, cache in zip(prompts, caches, strict=True)]
    requests = [
        Request(model(family), canvas_of(prompt, 20), DECODERS[decoder], cache=cache)
        for prompt, cache in zip(prompts, caches, strict=True)
    ]
    kinds = set()
    while live := [request for request in requests if not request.done]:
        kinds.add(frozenset(each.kind for each in step(model(family), live)))
    assert any(len(together) > 1 for together in kinds)
    assert [request.canvas.tokens.tolist() for request in requests] == [a.canvas.tokens.tolist() for a, _ in alone]
    assert [request.stats for request in requests] == [steps[-1].stats for _, steps in alone]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_long_prompt_is_computed_in_chunks_of_whole_blocks(decoder: str) -> None:
    prompt = np.random.default_rng(2).integers(5, 240, 2 * CHUNK + 3 * SIZE + 5).tolist()
    _, steps = talk(decoder, prompt, 3)
    prefills = [each.rows for each in steps if each.kind == "prefill"]
    fused = decoder in ("sdar", "llada2_moe", "llada2_moe, editing")
    assert prefills == [CHUNK, CHUNK] + ([] if fused else [3 * SIZE])
    assert all(each.rows == SIZE for each in steps[len(prefills) + 1 :])
    assert steps[len(prefills)].rows == (4 * SIZE if fused else SIZE)


@pytest.mark.parametrize("family", ["sdar", "fast_dllm_v2", "llada2_moe"])
def test_tokens_may_be_given_anywhere(family: str) -> None:
    """Given tokens may fill a part of a block, whole blocks, and the end of a canvas."""
    rng = np.random.default_rng(4)
    given = np.repeat([True, False, True, False, True, False, True], [5, 6, 3, 4, 21, 9, 3])
    canvas = Canvas(rng.integers(5, 240, len(given)), given, MASK, block_size=SIZE)
    tokens, before = canvas.tokens.copy(), canvas.tokens.copy()
    request = Request(model(family), canvas, DECODERS[family])
    for each in follow(model(family), request):
        if len(each.eligible):
            logits = exact(family, before[: -(-(int(each.eligible[-1]) + 1) // SIZE) * SIZE])
            logits[:, MASK] = -np.inf
            source = each.eligible - model(family).shift
            assert (logits[source].argmax(axis=1) == each.guesses).all()
        before = canvas.tokens.copy()
    assert (canvas.tokens[given] == tokens[given]).all()
    assert MASK not in canvas.tokens


@pytest.mark.parametrize("family", ["sdar", "fast_dllm_v2"])
def test_answers_end_at_the_limit_or_at_an_end_token(family: str) -> None:
    """The model sees whole blocks of masks, but the answer has no token after its limit or its end."""
    decoder, prompt = DECODERS[family], [7, 9, 30, 30, 30]
    whole = talk(family, prompt, 19)[0].canvas.answer.tolist()
    assert len(whole) == 19
    for limit in (1, 2, 3, 10, 18):
        request, steps = talk(family, prompt, limit)
        assert request.canvas.answer.tolist() == whole[:limit]
        assert (request.canvas.new_tokens, steps[-1].stats.tokens) == (limit, limit)
        assert len(request.canvas) == 8 * -(-(5 + limit) // 8)
    # An end token ends the answer when all tokens before it are committed. The masks after it are never seen filled.
    end = next(token for token in whole[9:] if token not in whole[:9])
    canvas = Canvas.for_prompt(prompt, 19, MASK, (end,), block_size=SIZE)
    steps = list(follow(model(family), Request(model(family), canvas, decoder)))
    assert canvas.answer.tolist() == whole[: whole.index(end) + 1]
    assert steps[-1].stats.tokens == len(canvas.answer)
    assert not any(len(each.filled) for each in steps[:-1])
    assert canvas.done and (canvas.tokens[5 + len(canvas.answer) :] == end).all()
    everything = Canvas.for_prompt(prompt, 19, MASK, (end,), early_stop=False, block_size=SIZE)
    list(follow(model(family), Request(model(family), everything, decoder)))
    assert everything.tokens[5 : 5 + 19].tolist() == whole


@pytest.mark.parametrize("family", ["sdar", "fast_dllm_v2", "llada2_moe"])
def test_a_mask_token_in_a_prompt_is_text(family: str) -> None:
    prompt = [MASK, 9, MASK, 30, 31, MASK, 32, 33, 34, MASK, MASK]
    request, steps = talk(family, prompt, 9)
    assert request.canvas.tokens[:11].tolist() == prompt
    assert min(position for each in steps for position in each.positions) == 11


def test_top_k_of_one_is_greedy_with_the_probabilities_of_all_tokens() -> None:
    greedy = generate(model("sdar"), None, [7, 9, 30], max_tokens=12)
    one = generate(model("sdar"), None, [7, 9, 30], max_tokens=12, sampling=Sampling(1.0, top_k=1))
    assert (one.tokens, one.stats) == (greedy.tokens, greedy.stats)
    assert one.stats.forwards > 4


def test_the_block_size_is_that_of_the_model() -> None:
    """The golden model has blocks of 4, and an option replaces it."""
    prompt = [7, 9, 30]
    for decoder, size in ((None, 4), ("sdar", 4), (SDAR(block_size=16), 16)):
        generation = Generation(model("sdar"), None, prompt, decoder, max_tokens=20)
        assert (generation.canvas.block_size, len(generation.canvas)) == (size, -(-23 // size) * size)
        assert max(each.rows for each in generation) <= 2 * size
    results = batch_generate(model("sdar"), None, [prompt, [*prompt, 8]], max_tokens=6)
    assert [result.tokens for result in results] == [
        generate(model("sdar"), None, ids, max_tokens=6).tokens for ids in (prompt, [*prompt, 8])
    ]
    quantized = Generation(model("sdar"), None, prompt, SDAR(kv_bits=8, kv_group_size=32), max_tokens=6)
    assert list(quantized)[-1].stats.tokens == 6
    with pytest.raises(ConfigError, match="earlier cache has blocks of 16 tokens, and this request of 4"):
        generate(model("sdar"), None, prompt, approximate_cache=generation.request.cache)
    with pytest.raises(ConfigError, match="sub-block-size must divide the block size 4, and 8 does not"):
        generate(model("sdar"), None, prompt, FastDLLMv2(sub_block_size=8))
    # The default sub-block of 8 is reduced to fit.
    for size in (1, 3, 4, 12):
        assert generate(model("sdar"), None, prompt, FastDLLMv2(block_size=size), max_tokens=6).stats.tokens == 6
    with pytest.raises(ConfigError, match="block-size must be a number of tokens, 1 to 4,096, not 5000"):
        SDAR(block_size=5000)
    with pytest.raises(PromptError, match="need complete blocks of 4096, which exceed this model's context"):
        generate(model("sdar"), None, prompt, SDAR(block_size=4096), max_tokens=6)
    assert generate(model("sdar"), None, prompt, FastDLLMv2(sub_block_size=2), max_tokens=6).stats.tokens == 6
    assert generate(model("fast_dllm_v2"), None, prompt, SDAR(), max_tokens=6).stats.tokens == 6


def test_a_decoder_for_other_attention_is_refused() -> None:
    for family, decoder in (("sdar", "selective"), ("sdar", "vanilla"), ("fast_dllm_v2", "d3llm"), ("llada", "sdar")):
        attention = {"llada": "bidirectional"}.get(family, "block-causal")
        name = {"sdar": "sdar", "fast_dllm_v2": "fast-dllm-v2", "llada": "selective"}[family]
        for chosen in (decoder, preset(decoder).build("llada" if family != "llada" else "sdar")):
            with pytest.raises(ConfigError, match=rf"{family} has {attention} attention. Use decoder {name}\.$"):
                generate(model(family), None, [7], chosen)
    with pytest.raises(ConfigError, match="works only with aligned blocks"):
        Decoder(AlignedBlocks(), DECODERS["sdar"].acceptance, Selective().build("llada").cache)
    with pytest.raises(ConfigError, match="alg static has no threshold"):
        SDAR(alg="static", threshold=0.5).build("sdar")
    with pytest.raises(ConfigError, match="needs the block size of the canvas"):
        Request(model("sdar"), Canvas.for_prompt([7], 4, MASK), DECODERS["sdar"])


def test_keys_and_values_grow_in_place() -> None:
    """A finished answer has one slot per position, rounded up, and earlier steps leave nothing else."""
    canvas = Canvas.for_prompt([7], 700, MASK, block_size=4)
    request = Request(model("sdar"), canvas, SDAR(threshold=0.0).build("sdar"))
    most = 0
    for each in follow(model("sdar"), request):
        assert each.rows <= 8
        most = max(most, len(each.blocks))
    assert most == 33
    for layer in request.cache.layers:
        assert {array.shape[3] for array in layer.arrays} == {768}  # type: ignore[attr-defined]
    assert request.cache.hidden is not None
    assert request.cache.hidden.shape[1] == 768
