"""A complete decode gives the same tokens with emulated kernels as with the references."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import pytest

from d3mlx.cache import KVCache
from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import DreamOrigin, DreamSchedule, Entropy, Quota, Relaxed
from d3mlx.decoding.cache_policy import NoCache, Plan, consecutive
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.schedule import ActiveBlocks, MultiBlock, SequentialBlocks, WholeCanvas
from d3mlx.engine import step
from d3mlx.kernels import dispatch
from d3mlx.request import Request
from tests.golden.cases import model
from tests.kernels.conftest import Executor
from tests.metal import Emulation


@dataclass(frozen=True)
class MaskedOnly:
    """A policy that computes all positions once and then only the masked ones, which are not consecutive."""

    cached: bool = True

    def start(self, canvas: Canvas, cache: KVCache) -> bool:
        return False

    def step(self, canvas: Canvas, active: ActiveBlocks, cache: KVCache, state: bool) -> tuple[Plan, bool]:
        if not state:
            return consecutive(0, canvas.active_length, "first"), True
        return Plan(canvas.masked_before(canvas.active_length)), True


MULTI_BLOCK = D3LLM(threshold=2.0, block_size=8, cache_delay=1, refresh_interval=4).build("llada")
CASES = {
    "d3llm": (MULTI_BLOCK, {"accept_entropy"}),
    "scattered rows": (
        Decoder(MultiBlock(8, 0.1, 0.9), Entropy(2.0), MaskedOnly()),
        {"accept_entropy", "refresh_rows"},
    ),
    "relaxed threshold": (
        Decoder(MultiBlock(8, 0.1, 0.9), Relaxed(Entropy(2.0), 2.5), MaskedOnly()),
        {"accept_entropy_noisy"},
    ),
    "quota": (Decoder(SequentialBlocks(8), Quota("confidence", 12), NoCache()), {"accept_confidence_best"}),
    "random quota": (Decoder(SequentialBlocks(8), Quota("random", 12), NoCache()), {"accept_random_best_noisy"}),
    "drawn positions": (
        Decoder(WholeCanvas(), DreamSchedule("margin", 12, 1e-3, alg_temp=0.5), NoCache()),
        {"accept_margin_best_noisy"},
    ),
    "origin": (Decoder(WholeCanvas(), DreamOrigin(12, 1e-3), NoCache()), {"accept_random_below_noisy"}),
}
"""A decoder, and the kernels that it must run in addition to `token_stats`."""


def request_of(decoder: Decoder, sampling: Sampling) -> Request:
    canvas = Canvas.for_prompt([3, 14, 15, 92, 65], 24, mask_id=250, end_ids=())
    return Request(model("llada"), canvas, decoder, sampling)


def tokens(requests: list[Request]) -> list[list[int]]:
    """Decode all requests together; return the tokens of every step."""
    steps = []
    while left := [request for request in requests if not request.done]:
        steps += [result.tokens.tolist() for result in step(model("llada"), left)]
    return steps


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_same_tokens(executor: Executor, name: str, temperature: float) -> None:
    sampling, (decoder, kernels) = Sampling(temperature=temperature, seed=3), CASES[name]
    with patch.object(dispatch, "on_gpu", lambda: False):
        expected = tokens([request_of(decoder, sampling)])
    with executor(Emulation(seed=1)) as records:
        result = tokens([request_of(decoder, sampling)])
    assert result == expected
    assert sum(map(len, result)) == 24
    if records is not None:
        assert all(any(kernel in record.kernel for record in records) for kernel in {"token_stats", *kernels})


def test_same_tokens_of_requests_that_share_steps(executor: Executor) -> None:
    """A step runs `token_stats` once for requests with different decoders, temperatures and seeds."""

    def batch() -> list[Request]:
        temperatures = (0.0, 0.8, 0.0, 0.0, 1.2, 0.5, 0.8)
        return [
            request_of(decoder, Sampling(temperature=temperature, seed=seed))
            for seed, ((decoder, _), temperature) in enumerate(zip(CASES.values(), temperatures, strict=True))
        ]

    with patch.object(dispatch, "on_gpu", lambda: False):
        expected = tokens(batch())
    requests = batch()
    with executor(Emulation(seed=1)) as records:
        result = tokens(requests)
    assert result == expected
    if records is not None:
        launches = sum("token_stats" in record.kernel for record in records)
        assert launches == max(request.stats.forwards for request in requests)
