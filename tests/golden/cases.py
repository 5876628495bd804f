"""Reader of the reference cases, and the decoder of d3mlx for each group."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlx_lm.utils import load_model

from d3mlx.batch import Batcher
from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import (
    CarryQuota,
    Confidence,
    DreamOrigin,
    DreamSchedule,
    Entropy,
    Factor,
    FirstPosition,
    Quota,
)
from d3mlx.decoding.cache_policy import DelayedCache, DualCache, NoCache, PrefixCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.sampling import Noise, Sampling
from d3mlx.decoding.schedule import MultiBlock, SequentialBlocks, WholeCanvas
from d3mlx.decoding.vanilla import DREAM_ALGS
from d3mlx.models import get_model_classes
from d3mlx.request import Request, Step

FOLDER = Path(__file__).parent
FILES = [
    f"{family}/{name}"
    for family in ("llada", "dream")
    for name in ("vanilla", "fast_dllm", "multi_block", "multi_block_kv_cache")
]

FIXED = {"stale", "dup", "shift", "tail", "masks_left"}
"""Tags of peculiarities that this runtime corrects. Tokens or forwards differ, so these cases are left out."""

WASTED = {"fd_prefix_t0.05", "fd_dual_t0.05", "fd_prefix_t0.5"}
"""Groups with cases whose reference run computes a forward on a finished block. This runtime never does."""


@dataclass(frozen=True)
class Case:
    """One reference run. tags: the peculiarities that it depends on."""

    family: str
    group: str
    number: int
    algo: str
    params: dict[str, Any]
    data: dict[str, Any]
    tags: frozenset[str]

    @property
    def left_out(self) -> frozenset[str]:
        return self.tags & FIXED

    @property
    def trace_matches(self) -> bool:
        """Return whether the accepted positions of every step must match, not only tokens and forwards."""
        return not any(tag.endswith("_trace") for tag in self.tags)

    @property
    def rows(self) -> list[int] | None:
        """Return the rows of every forward, None if they were not recorded."""
        recorded = self.algo == "multi_block_kv_cache" or self.params.get("cache_delay_iter", 10000) < 10000
        return [rows for _, rows, *_ in self.data["fwd"]] if recorded and not self.tags else None

    @property
    def blocks(self) -> list[list[list[int]]] | None:
        """Return masks and activation of every block at every forward, None if they were not recorded."""
        return None if self.tags else self.data.get("blocks")

    @property
    def new_tokens(self) -> int:
        return int(self.params.get("gen_length") or self.params["max_new_tokens"])


@functools.cache
def cases(file: str) -> list[Case]:
    family = file.split("/")[0]
    groups = json.loads((FOLDER / f"{file}.json").read_text())["groups"]
    return [
        Case(family, group["name"], i, group["algo"], group["params"], data, tags_of(group["name"], data))
        for group in groups
        for i, data in enumerate(group["cases"])
    ]


def tags_of(group: str, data: dict[str, Any]) -> frozenset[str]:
    tags = set(data.get("quirks", []))
    if [] in data["accepted"] and group in WASTED:
        tags.add("wasted")
    return frozenset(tags)


@functools.cache
def model(family: str) -> Any:
    return load_model(FOLDER / family / "model", get_model_classes=get_model_classes)[0]


class RecordedNoise(Noise):
    """The formula that replaced the random numbers of the reference runs."""

    in_kernels = False

    def bits(self, index: Any, call: int, const: Callable[[int], Any]) -> Any:
        return index * const(2654435761) + const((call * 40503 + 12345) % 2**32)


def llada_decoder(algo: str, p: dict[str, Any]) -> Decoder:
    if algo.startswith("multi_block"):
        return multi_block("llada", p, cached=algo == "multi_block_kv_cache")
    rows = PrefixCache() if "prefix" in algo else DualCache() if "dual" in algo else NoCache()
    schedule = SequentialBlocks(p["block_length"])
    if "factor" in p:
        return Decoder(schedule, Factor(p["factor"]), rows)
    if "threshold" in p:
        entropy = algo == "generate"
        return Decoder(schedule, Entropy(p["threshold"]) if entropy else Confidence(p["threshold"]), rows)
    measure = "random" if p.get("remasking") == "random" else "confidence"
    return Decoder(schedule, Quota(measure, p["steps"]), rows, p.get("cfg_scale", 0.0))


def dream_decoder(algo: str, p: dict[str, Any]) -> Decoder:
    if algo == "multi_block":
        return multi_block("dream", p, cached=p.get("cache_delay_iter", 10000) < 10000)
    if algo == "entropy_sequential":
        return Decoder(SequentialBlocks(p["block_length"]), Entropy(p["threshold"], inclusive=False), NoCache())
    if algo in ("vanilla", "fd_vanilla"):
        if p["alg"] == "origin":
            return Decoder(WholeCanvas(), DreamOrigin(p["steps"], 1e-3), NoCache())
        if p["alg"] == "confidence_threshold":
            return Decoder(WholeCanvas(), CarryQuota(p["threshold"], p["steps"]), NoCache())
        return Decoder(WholeCanvas(), DreamSchedule(DREAM_ALGS[p["alg"]], p["steps"], p.get("eps", 1e-3)), NoCache())
    rows = DualCache() if p.get("dual_cache") else PrefixCache()
    per_block = 1 if algo == "fd_block" else p["max_new_tokens"] // p["block_length"]
    rule: Any = {
        "confidence_threshold": lambda: Confidence(p["threshold"]),
        "entropy_threshold": lambda: Entropy(p["threshold"], inclusive=False),
        "entropy": lambda: DreamSchedule("entropy", p["steps"] * per_block, 1e-3, first_step=1),
    }[p["alg"]]()
    return Decoder(SequentialBlocks(p["block_length"]), FirstPosition(rule), rows)


def multi_block(family: str, p: dict[str, Any], cached: bool) -> Decoder:
    llada = family == "llada"
    schedule = MultiBlock(p["block_size"], p["block_add_threshold"], p["decoded_token_threshold"])
    threshold = math.inf if p["threshold"] is None else p["threshold"]
    rule = Entropy(threshold, inclusive=llada, best_always=llada, force_likeliest=llada)
    rows = DelayedCache(p["cache_delay_iter"], p.get("refresh_interval", 10000), llada) if cached else NoCache()
    return Decoder(schedule, rule, rows)


def request_of(case: Case) -> Request:
    """Return a request with the case's prompt and the equivalent decoder of this runtime."""
    p = case.params
    decoder = (llada_decoder if case.family == "llada" else dream_decoder)(case.algo, p)
    ends = (case.data["eos_token_id"],) if p.get("early_stop") else ()
    canvas = Canvas.for_prompt(case.data["prompt"], case.new_tokens, mask_id=250, end_ids=ends)
    sampling = Sampling(p.get("temperature", 0.0), p.get("top_p"), p.get("top_k"))
    return Request(model(case.family), canvas, decoder, sampling, RecordedNoise(0))


def mismatches(members: list[Case]) -> dict[int, str]:
    """Decode cases of one family together. Return the first difference of each from its reference run, by number."""
    if not members:
        return {}
    batcher = Batcher(model(members[0].family), len(members))
    runs: dict[Request, tuple[Case, list[Step]]] = {request_of(case): (case, []) for case in members}
    for request in runs:
        batcher.submit(request)
    while batcher.busy:
        for request, step in batcher.step():
            runs[request][1].append(step)
    problems = {case.number: mismatch(case, request.canvas, steps) for request, (case, steps) in runs.items()}
    return {number: problem for number, problem in problems.items() if problem}


def mismatch(case: Case, canvas: Canvas, steps: list[Step]) -> str | None:
    """Return the first difference of a run from the reference run, or None."""
    output = canvas.tokens[canvas.prompt_length :].tolist()
    accepted = [sorted(positions) for positions in case.data["accepted"]]
    ours = [(step.positions - canvas.prompt_length).tolist() for step in steps]
    forwards = case.data["n_forward"]
    if "wasted" in case.tags:
        forwards -= accepted.count([])
        accepted = [positions for positions in accepted if positions]
    if output != case.data["output"]:
        return f"tokens differ at {np.flatnonzero(np.array(output) != np.array(case.data['output']))[:5].tolist()}"
    if len(steps) != forwards:
        return f"{len(steps)} forwards, reference {forwards}"
    if case.trace_matches and ours != accepted:
        first = next(i for i, (a, b) in enumerate(zip(ours, accepted, strict=True)) if a != b)
        return f"step {first} accepted {ours[first]}, reference {accepted[first]}"
    if case.rows is not None and ([step.rows for step in steps], steps[-1].stats.rows) != (case.rows, sum(case.rows)):
        return f"forwards of {[step.rows for step in steps]} rows, reference {case.rows}"
    blocks = [[[block.masks, int(block.full)] for block in step.blocks] for step in steps]
    if case.blocks is not None and blocks != case.blocks:
        return f"blocks {blocks}, reference {case.blocks}"
    return None
