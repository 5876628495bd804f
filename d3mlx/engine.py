"""The decode step: every request plans its rows, one forward computes all rows, each request commits its tokens.

There is no other decode loop. `decode` runs the step for one request; evaluation, recording and batched generation run
it for many. The engine is independent of tokenizers, terminals and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from d3mlx.cache import Joint, KVCache
from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.sampling import Noise, Sampling
from d3mlx.kernels.dispatch import on_device
from d3mlx.kernels.token_stats import Choice, Draw, TokenStats, runs_on_device, token_stats
from d3mlx.models import DiffusionModel
from d3mlx.profiling import Profiler, current
from d3mlx.request import NOTHING, Request, Step


def step(model: DiffusionModel, requests: Sequence[Request], profile: Profiler | None = None) -> list[Step]:
    """Run one forward for all `requests`, and return a Step per request, in the same order.

    requests: at least one, none of them done. Each gets the tokens that it gets alone, except for near ties: the logits
    of a row depend slightly on the other rows, because a matrix product adds in another order. The difference is about
    1e-5 on a CPU in float32, and larger in half precision and on a GPU.
    profile: the profiler that is told the stages, by default the current one.
    Raises CheckpointError if logits are NaN.
    """
    profile = profile or current()
    # The rows depend only on committed tokens, which the host knows: planning never waits for the device.
    for request in requests:
        request.plan()
    profile.mark("plan")

    # Projections, MLP and head run once over the rows of all requests; only attention runs per request.
    hidden = forward(model, requests)
    # Some requests may have nothing to decide, for example in a prefill: their rows only go into the cache.
    deciding = [request for request in requests if len(request.eligible)]
    logits = eligible_logits(model, deciding) if deciding else None
    profile.mark("forward", [*hidden] if logits is None else [logits])

    # MLX is lazy: nothing was computed until here. The host waits once.
    results = iter(decide(logits, deciding, hidden))
    profile.mark("acceptance")
    # Canvases and block tables change only here, after the read.
    steps = [request.settle(next(results) if len(request.eligible) else NOTHING) for request in requests]
    profile.mark("commit")
    return steps


def decide(logits: mx.array | None, requests: Sequence[Request], hidden: list[mx.array]) -> list[Ints]:
    """Return each request's tokens to commit, int32 [3 N], packed, on the host; also compute the arrays `hidden`.

    logits: those of the eligible rows of all requests; None if there are none. With kernels, statistics and acceptance
    run on the device, and only the result is read. Without, the logits are read, and both run on the host.
    """
    if logits is None:
        return read([], hidden)
    logits, choice = drawn(logits, requests)
    if runs_on_device(choice):
        return read(accepted(logits, choice, requests), hidden)
    return accepted(*read_logits(logits, choice, hidden), requests)


def read_logits(logits: mx.array, choice: Choice, hidden: Sequence[mx.array] = ()) -> tuple[Any, Choice]:
    """Return logits and choice as `token_stats` takes them on the host; also compute the arrays `hidden`."""
    scores = [choice] if isinstance(choice, mx.array) else []
    on_host = read([x.astype(mx.float32) for x in (logits, *scores)], hidden)
    return on_host[0], on_host[1] if scores else choice


def accepted(logits: Any, choice: Choice, requests: Sequence[Request]) -> list[Any]:
    """Apply the rule of each request to its rows of logits [sum of N, V], lane by lane. Return int32 [3 N] of each."""
    stats = token_stats(logits, requests[0].canvas.mask_id, choice)
    counts = [len(request.eligible) for request in requests]
    return [request.accept(part) for request, part in zip(requests, split_stats(stats, counts), strict=True)]


def forward(model: DiffusionModel, requests: Sequence[Request]) -> list[mx.array]:
    """Compute the planned rows of all requests in one forward; return each lane's hidden rows, [1, L, D]."""
    lanes = [(lane, request.rows) for request in requests for lane in request.lanes]
    tokens = [lane.canvas.tokens[rows.positions] for lane, rows in lanes]
    layers = [lane.cache.open(rows, ids) for (lane, rows), ids in zip(lanes, tokens, strict=True)]
    ids = on_device(np.concatenate(tokens))[None]
    if len(lanes) == 1:
        fresh = [model.hidden(ids, lanes[0][1].positions, layers[0])]
    else:
        ends = np.cumsum([rows.count for _, rows in lanes]).tolist()
        positions = np.concatenate([rows.positions for _, rows in lanes])
        joint = [Joint(each, ends) for each in zip(*layers, strict=True)]
        fresh = list(mx.split(model.hidden(ids, positions, joint), ends[:-1], axis=1))
    return [lane.cache.write_hidden(rows, part) for (lane, rows), part in zip(lanes, fresh, strict=True)]


def eligible_logits(model: DiffusionModel, requests: Sequence[Request]) -> mx.array:
    """Return logits [N, V] for the eligible positions of all requests, lane by lane."""
    gathered = []
    for request in requests:
        source = np.maximum(request.eligible - model.shift, 0)
        gathered += [lane.cache.hidden_at(source) for lane in request.lanes]
    return model.logits(mx.concatenate(gathered) if len(gathered) > 1 else gathered[0])


def drawn(logits: mx.array, requests: Sequence[Request]) -> tuple[mx.array, Choice]:
    """Return the logits [sum of N, V] of which statistics are computed, and how tokens are drawn from them.

    logits: those of all lanes, which guidance combines.
    """
    if all(request.greedy for request in requests):
        return logits, None
    mask_id = requests[0].canvas.mask_id
    parts = iter(split_rows(logits, [len(request.eligible) for request in requests for _ in request.lanes]))
    unchanged, request_logits, choices = True, [], []
    for request in requests:
        lanes = [next(parts) for _ in request.lanes]
        guided = request.drawing.logits(request.guide(lanes), mask_id)
        unchanged = unchanged and guided is lanes[0]
        request_logits.append(guided)
        choices.append(request.drawing.choice(guided, request.eligible, mask_id))
    if not unchanged:
        logits = mx.concatenate(request_logits) if len(request_logits) > 1 else request_logits[0]
    draws = [choice for choice in choices if isinstance(choice, Draw)]
    if len(draws) == len(choices):
        draw = Draw.join(draws)
        return logits, None if draw.greedy else draw
    scores = [
        choice.scores(part) if isinstance(choice, Draw) else choice
        for choice, part in zip(choices, request_logits, strict=True)
    ]
    return logits, mx.concatenate(scores) if len(scores) > 1 else scores[0]


def split_stats(stats: TokenStats, counts: Sequence[int]) -> list[TokenStats]:
    """Split statistics [sum of counts] into parts of `counts` rows."""
    if len(counts) == 1:
        return [stats]
    return [TokenStats(*each) for each in zip(*(split_rows(column, counts) for column in stats), strict=True)]


def split_rows(array: Any, counts: Sequence[int]) -> list[Any]:
    """Split the first axis of an array of MLX or NumPy into parts of `counts` rows."""
    split: Any = mx.split if isinstance(array, mx.array) else np.split
    return list(split(array, np.cumsum(counts)[:-1].tolist())) if len(counts) > 1 else [array]


def read(arrays: Sequence[mx.array], computed: Sequence[mx.array] = ()) -> list[npt.NDArray[Any]]:
    """Return `arrays` on the host and compute the arrays `computed`. This is the only synchronization of a step."""
    mx.eval([*arrays, *computed])
    return [np.array(array) for array in arrays]


def decode(
    model: DiffusionModel,
    canvas: Canvas,
    decoder: Decoder,
    sampling: Sampling | None = None,
    noise: Noise | None = None,
    cache: KVCache | None = None,
) -> Iterator[Step]:
    """Denoise `canvas` in place and yield one Step per forward; the arguments are those of `Request`.

    Raises CheckpointError if the model's logits are NaN.
    """
    yield from follow(model, Request(model, canvas, decoder, sampling, noise, cache))


def follow(model: DiffusionModel, request: Request) -> Iterator[Step]:
    """Yield the Steps of one request until it is done."""
    profile = current()
    profile.begin()
    while not request.done:
        yield step(model, [request], profile)[0]
        profile.mark("consumers")
