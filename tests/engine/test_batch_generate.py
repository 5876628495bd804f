"""`batch_generate` and `run_batch` give each prompt the result of `generate`, in the order of the prompts."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from d3mlx import D3LLM, Sampling, batch_generate, generate, load
from d3mlx.checkpoints.loader import nbytes
from d3mlx.data.stories.stories import problem
from d3mlx.errors import ConfigError, MemoryLimitError, PromptError
from d3mlx.generation import Generation, run_batch

MODEL, TOKENIZER = load("embedded")
CHATS = [[{"role": "user", "content": problem(index, "held-out").question}] for index in range(5)]


@pytest.mark.parametrize("decoder", ["selective", D3LLM(block_size=16)])
@pytest.mark.parametrize(
    "options", [{}, {"sampling": Sampling(0.8, seed=5)}, {"stop": ["The answer"], "early_stop": False}]
)
def test_results_are_those_of_generate(decoder: Any, options: dict[str, Any]) -> None:
    sampling = options.get("sampling", Sampling())
    results = batch_generate(MODEL, TOKENIZER, CHATS, decoder, max_tokens=32, max_batch=3, **options)
    for index, (result, chat) in enumerate(zip(results, CHATS, strict=True)):
        own = {**options, "sampling": replace(sampling, seed=sampling.seed + index)}
        expected = generate(MODEL, TOKENIZER, chat, decoder, max_tokens=32, **own)
        assert (result.text, result.tokens, result.stats) == (expected.text, expected.tokens, expected.stats)
        assert [step.text for step in result.steps] == [step.text for step in expected.steps]
    assert batch_generate(MODEL, TOKENIZER, []) == []


def test_nothing_runs_if_a_prompt_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(MODEL), "hidden", lambda *_: pytest.fail("a forward ran"))
    with pytest.raises(PromptError, match="empty"):
        batch_generate(MODEL, TOKENIZER, [CHATS[0], ""])
    for single in ("Hello", CHATS[0], [1, 2, 3]):
        with pytest.raises(PromptError, match="list of prompts"):
            batch_generate(MODEL, TOKENIZER, single)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch size"):
        batch_generate(MODEL, TOKENIZER, CHATS, max_batch=0)
    with pytest.raises(TypeError, match="threshold"):
        batch_generate(MODEL, TOKENIZER, CHATS, threshold=0.5)  # type: ignore[call-arg]
    # The last prompt alone does not fit.
    monkeypatch.setattr("d3mlx.batch.memory_limit", lambda: int(nbytes(MODEL) + 1e6))
    with pytest.raises(MemoryLimitError, match="positions"):
        batch_generate(MODEL, TOKENIZER, [*CHATS, [5] * 400], max_tokens=16)


@pytest.mark.parametrize("kind", [PromptError, ValueError])
def test_an_error_of_the_feed_is_raised_after_earlier_generations_are_done(kind: type[Exception]) -> None:
    """After the error, the feed is not called again."""
    left = [Generation(MODEL, TOKENIZER, chat, max_tokens=16) for chat in CHATS[:2]]
    calls = 0
    error = kind("The third prompt is bad.")

    def feed() -> Generation | None:
        nonlocal calls
        calls += 1
        if left:
            return left.pop(0)
        raise error

    finished = set()
    with pytest.raises(kind, match="third"):
        for generation, _ in run_batch(MODEL, feed, 4):
            if generation.done:
                finished.add(generation)
    assert len(finished) == 2
    assert calls == 3


def test_finished_prompts_leave_no_cache() -> None:
    """With any number of prompts, only those that run have keys and values in memory."""
    ids = [[5] * 300] * 6
    results = batch_generate(MODEL, TOKENIZER, ids[:1], D3LLM(), max_tokens=8, max_batch=2)

    def peak(count: int) -> int:
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        results.extend(batch_generate(MODEL, TOKENIZER, ids[:count], D3LLM(), max_tokens=8, max_batch=2))
        return mx.get_peak_memory() - before

    assert peak(6) < 1.3 * peak(2)
    assert len({result.text for result in results}) == 1


def test_a_feed_may_have_more_generations_later() -> None:
    """None means that there is no generation yet. The feed is called again while a generation runs."""
    first, second = (Generation(MODEL, TOKENIZER, chat, max_tokens=16) for chat in CHATS[:2])
    queue = [first]
    order = []
    for generation, step in run_batch(MODEL, lambda: queue.pop() if queue else None, 2):
        order.append((generation is second, step.index))
        if generation is first and step.index == 1:
            queue.append(second)
    assert first.done
    assert second.done
    assert order[0] == (False, 0)
    assert (True, 0) in order
