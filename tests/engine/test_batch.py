"""Many requests in one forward: each gets the tokens that it gets alone, whenever other requests join and leave.

Logits of a row may differ by up to about 3e-5, because a BLAS library adds in another order if there are other rows. So
the steps of a request may differ from those alone only if the decision was within MARGIN of another decision. Such
requests must be rare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import engine, request
from d3mlx.batch import Batcher
from d3mlx.canvas import Canvas
from d3mlx.checkpoints.loader import nbytes
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.engine import follow
from d3mlx.errors import ConfigError, MemoryLimitError
from d3mlx.kernels.accept_blocks import Rule, scores_of
from d3mlx.kernels.token_stats import Choice, Draw, TokenStats
from d3mlx.models import get_model_classes
from d3mlx.request import Request, Step
from tests.builders import DREAM_CONFIG, LLADA_CONFIG, dream_weights, llada_weights

MARGIN = 1e-4
RARE = 0.02
SCENARIOS = 18

DECODERS: dict[str, list[Any]] = {
    "llada": [
        Vanilla(block_size=8),
        Vanilla(block_size=5, steps=11, alg="random"),
        Vanilla(block_size=8, steps=9, cfg_scale=0.5),
        FastDLLM(cache="none", threshold=0.3, block_size=8),
        FastDLLM(cache="prefix", factor=1.5, block_size=7),
        FastDLLM(cache="dual", threshold=0.2, block_size=5),
        FastDLLM(cache="dual", threshold=0.2, block_size=6, kv_bits=8, kv_group_size=32),
        D3LLM(cache="none", threshold=3.0, block_size=6),
        D3LLM(threshold=3.0, block_size=5, cache_delay=1, refresh_interval=3),
        D3LLM(threshold=3.5, block_size=8, kv_bits=8, kv_group_size=32),
        Selective(threshold=3.0, block_size=6, rows=12),
        Selective(threshold=3.0, block_size=8, rows=8, refresh_interval=3),
        Selective(threshold=3.0, block_size=4, rows=8, first_masks=8),
        Selective(threshold=3.0, block_size=6, rows=12, relaxed_threshold=4.0),
        Selective(threshold=3.0, block_size=4, rows=8, kv_bits=8, kv_group_size=32),
    ],
    "dream": [
        Vanilla(),
        Vanilla(alg="topk_margin", steps=7),
        Vanilla(alg="maskgit_plus", steps=9, alg_temp=0.5),
        Vanilla(alg="origin", steps=6),
        FastDLLM(cache="none", threshold=0.3, steps=5),
        FastDLLM(cache="prefix", threshold=0.2, block_size=6),
        FastDLLM(cache="dual", threshold=0.2, block_size=7),
        D3LLM(cache="none", threshold=3.0, block_size=6),
        D3LLM(threshold=3.0, block_size=5, cache_delay=2, refresh_interval=4),
        D3LLM(threshold=3.5, block_size=8, kv_bits=8, kv_group_size=32),
        Selective(threshold=3.0, block_size=5, rows=12),
        Selective(threshold=3.0, block_size=5, rows=8, first_masks=0),
        Selective(threshold=3.0, block_size=6, rows=12, relaxed_threshold=4.0),
        Selective(threshold=3.0, block_size=4, rows=8, kv_bits=8, kv_group_size=32),
    ],
}
SAMPLINGS = [
    Sampling(),
    Sampling(),
    Sampling(0.8, seed=3),
    Sampling(1.3, seed=4),
    Sampling(0.9, top_p=0.8, seed=5),
    Sampling(0.7, top_k=4, seed=6),
    Sampling(top_p=0.7),
]


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Run the tests on the CPU in float32. In half precision and on a GPU, tokens may differ."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


@cache
def model(family: str) -> Any:
    """Return a model with random weights, whose heads are wide enough for quantized keys and values."""
    heads = {"n_heads": 2, "n_kv_heads": 2} if family == "llada" else {"num_attention_heads": 2}
    config = (LLADA_CONFIG if family == "llada" else DREAM_CONFIG | {"num_key_value_heads": 1}) | heads
    kind, arguments = get_model_classes(config)
    made = kind(arguments.from_dict(config))  # type: ignore[attr-defined]
    weights = llada_weights(config) if family == "llada" else dream_weights(config)
    made.load_weights(list(made.sanitize(weights).items()))
    return made


@dataclass
class Person:
    """A user with a request. arrives: step of the batch before which the request joins. leaves: steps before cancel."""

    family: str
    prompt: list[int]
    new_tokens: int
    preset: Any
    sampling: Sampling
    early_stop: bool
    arrives: int
    leaves: int | None
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def random(cls, family: str, rng: np.random.Generator) -> Person:
        return cls(
            family,
            # The mask token's id may be among the given tokens.
            rng.integers(0, 261, rng.integers(1, 30)).tolist(),
            int(rng.integers(1, 40)),
            DECODERS[family][rng.integers(len(DECODERS[family]))],
            SAMPLINGS[rng.integers(len(SAMPLINGS))],
            bool(rng.integers(2)),
            int(rng.integers(0, 15)),
            int(rng.integers(1, 12)) if rng.random() < 0.2 else None,
        )

    def request(self) -> Request:
        mask_id = model(self.family).args.mask_token_id
        canvas = Canvas.for_prompt(self.prompt, self.new_tokens, mask_id, tuple(range(7, 17)), self.early_stop)
        return Request(model(self.family), canvas, self.preset.build(self.family), self.sampling)

    def alone(self) -> Iterator[Step]:
        return follow(model(self.family), self.request())


def facts(step: Step) -> tuple[Any, ...]:
    """Return the parts of a step that must not depend on other requests."""
    arrays = step.positions, step.tokens, step.filled, step.eligible
    return (*(array.tolist() for array in arrays), step.index, step.kind, step.blocks, step.rows, step.stats)


def together(people: list[Person], max_batch: int) -> list[set[Request]]:
    """Run the requests of `people` together. Return the requests of each forward."""
    batcher = Batcher(model(people[0].family), max_batch)
    requests = {id(person): person.request() for person in people}
    whose = {requests[id(person)]: person for person in people}
    shared, tick = [], 0
    while batcher.busy or any(person.arrives >= tick for person in people):
        for person in people:
            if person.arrives == tick:
                batcher.submit(requests[id(person)])
        steps = batcher.step()
        shared.append({request for request, _ in steps})
        for request_, step in steps:
            person = whose[request_]
            person.steps.append(step)
            if len(person.steps) == person.leaves:
                batcher.cancel(request_)
        tick += 1
    return shared


def gap(scores: mx.array) -> float:
    """Return the smallest distance between the best and the second best id of a row."""
    ordered = np.sort(np.array(scores.astype(mx.float32)), axis=-1)
    return float((ordered[:, -1] - ordered[:, -2]).min()) if ordered.shape[1] > 1 else np.inf


def closeness(person: Person, index: int) -> float:
    """Return how close step `index`, run alone, was to another decision.

    This is the smallest distance between ids, between rows, and between a row and the threshold.
    """
    seen: list[float] = []
    token_stats, accept_blocks = engine.token_stats, request.accept_blocks

    def watched_stats(logits: mx.array, excluded: int, choice: Choice = None) -> TokenStats:
        allowed = mx.where(mx.arange(logits.shape[-1]) == excluded, -mx.inf, logits.astype(mx.float32))
        scores = [allowed]
        if choice is not None:
            drawn = choice.scores(logits) if isinstance(choice, Draw) else choice
            scores.append(mx.where(mx.arange(logits.shape[-1]) == excluded, -mx.inf, drawn))
        seen[:] = [gap(each) for each in scores]
        return token_stats(logits, excluded, choice)

    def watched_rule(stats: TokenStats, positions: Any, focus: Any, rule: Rule) -> mx.array:
        scores = np.array(scores_of(stats, rule))
        seen.append(float(np.abs(scores - rule.threshold).min()))
        ordered = np.sort(scores)
        seen.append(float(np.diff(ordered).min()) if len(ordered) > 1 else np.inf)
        return accept_blocks(stats, positions, focus, rule)

    with patch.object(engine, "token_stats", watched_stats), patch.object(request, "accept_blocks", watched_rule):
        for step in person.alone():
            if step.index == index:
                break
    return min(seen)


@pytest.mark.parametrize("family", DECODERS)
def test_each_request_gets_the_tokens_that_it_gets_alone(family: str) -> None:
    shared, excluded, people = 0, list[Person](), list[Person]()
    for seed in range(SCENARIOS):
        rng = np.random.default_rng(seed)
        group = [Person.random(family, rng) for _ in range(rng.integers(2, 7))]
        shared += sum(len(ran) > 1 for ran in together(group, int(rng.integers(2, 6))))
        people += group
    for person in people:
        alone = [facts(step) for step in person.alone()][: person.leaves]
        batched = [facts(step) for step in person.steps]
        if alone == batched:
            continue
        first = next(i for i, (a, b) in enumerate(zip(alone, batched, strict=False)) if a != b)
        close = closeness(person, first)
        assert close < MARGIN, f"{person} differs at step {first}: {alone[first]} alone, {batched[first]} in the batch"
        excluded.append(person)
    assert shared > 10 * SCENARIOS
    assert len(excluded) <= RARE * len(people), excluded


def request_of(seed: int, new_tokens: int = 12) -> Request:
    rng = np.random.default_rng(seed)
    canvas = Canvas.for_prompt(rng.integers(0, 250, 5).tolist(), new_tokens, 258)
    return Request(model("llada"), canvas, D3LLM(threshold=3.0, block_size=4).build("llada"))


def test_requests_run_in_the_order_of_submission() -> None:
    batcher = Batcher(model("llada"), 2)
    requests = [request_of(seed, new) for seed, new in enumerate((20, 4, 12, 8))]
    for each in requests:
        batcher.submit(each)
    started: list[Request] = []
    while batcher.busy:
        ran = [each for each, _ in batcher.step()]
        assert len(ran) <= 2
        started += [each for each in ran if each not in started]
    assert started == requests
    assert all(each.done for each in requests)
    assert batcher.step() == []


def test_a_request_leaves_when_it_is_canceled() -> None:
    batcher = Batcher(model("llada"), 1)
    running, waiting, last = (request_of(seed) for seed in range(3))
    for each in (running, waiting, last):
        batcher.submit(each)
    assert [each for each, _ in batcher.step()] == [running]
    batcher.cancel(waiting)
    batcher.cancel(running)
    assert [each for each, _ in batcher.step()] == [last]
    batcher.cancel(waiting)
    assert batcher.busy
    batcher.cancel(last)
    assert not batcher.busy


def test_a_request_waits_for_memory_and_later_requests_wait_too() -> None:
    kind = model("llada")
    small, large = request_of(1, 10), request_of(2, 100)
    # 2 layers of 2 heads of 32 numbers, keys and values, and the hidden row of 64, in float32.
    a_position = 4 * (2 * 2 * 2 * 32 + 64)
    batcher = Batcher(kind, 8, reserve=0.5, limit=2 * (nbytes(kind) + 119 * a_position))
    assert batcher.bytes_of(small) == 15 * a_position
    for each in (small, large, request_of(3, 10)):
        batcher.submit(each)
    sizes = []
    while batcher.busy:
        sizes.append([len(each.canvas) for each, _ in batcher.step()])
    # The second request needs one position more than the first leaves free, and the third does not overtake it.
    assert [size for size, _ in groupby(sizes)] == [[15], [105], [15]]


def test_memory_of_a_request() -> None:
    """The memory includes hidden rows, quantized keys and values, and both lanes of a guided request."""
    batcher = Batcher(model("llada"), 8)
    canvas = Canvas.for_prompt([1, 2, 3], 7, 258)

    def bytes_of(preset: Any) -> int:
        return batcher.bytes_of(Request(model("llada"), canvas, preset.build("llada")))

    numbers, hidden = 2 * 2 * 32, 64
    assert bytes_of(D3LLM()) == 10 * 4 * (2 * numbers + hidden)
    # 8 bits per number; a float32 scale and bias for each group of 32.
    assert bytes_of(D3LLM(kv_bits=8, kv_group_size=32)) == 10 * (2 * (numbers + 8 * numbers // 32) + 4 * hidden)
    assert bytes_of(Vanilla()) == 10 * 4 * (numbers + hidden)
    assert bytes_of(Vanilla(cfg_scale=1.0)) == 2 * bytes_of(Vanilla())


def test_a_request_that_cannot_fit_alone_is_refused() -> None:
    kind = model("llada")
    batcher = Batcher(kind, limit=nbytes(kind) + 50_000)
    # The reserve applies to several requests only: with it, the first request would not fit.
    assert batcher.budget < batcher.bytes_of(request_of(1))
    batcher.submit(request_of(1))
    with pytest.raises(MemoryLimitError, match="105 positions"):
        batcher.submit(request_of(2, 100))
    assert len(batcher.waiting) == 1


def test_a_request_is_submitted_once() -> None:
    batcher = Batcher(model("llada"), 4)
    first, second = request_of(1, 4), request_of(2, 20)
    batcher.submit(first)
    batcher.submit(second)
    with pytest.raises(ConfigError, match="already submitted"):
        batcher.submit(second)
    while not first.done:
        batcher.step()
    for each in (first, second):
        with pytest.raises(ConfigError, match="already submitted"):
            batcher.submit(each)


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"reserve": 1.0}, {"reserve": -0.1}])
def test_bad_settings(options: Any) -> None:
    with pytest.raises(ConfigError):
        Batcher(model("llada"), **options)
