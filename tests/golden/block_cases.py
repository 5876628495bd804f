"""Reader of the reference cases of block-causal models, and the decoder of d3mlx for each group."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from d3mlx.canvas import Canvas, Ints
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.fast_dllm_v2 import FastDLLMv2
from d3mlx.decoding.llada2 import LLaDA2
from d3mlx.decoding.sampling import Drawing, Sampling
from d3mlx.decoding.sdar import SDAR
from d3mlx.decoding.stable_diffcoder import StableDiffCoder
from d3mlx.engine import step
from d3mlx.kernels.token_stats import Draw
from d3mlx.request import Request, Step
from tests.golden.cases import FOLDER, model

MASK = 250
FILES = {
    "sdar": ["decode"],
    "fast_dllm_v2": ["decode"],
    "llada2_moe": ["decode20", "decode21"],
    "stable_diffcoder": ["decode"],
}
FAMILIES = tuple(FILES)
ALGS = {"low_confidence_static": "static", "low_confidence_dynamic": "dynamic", "sequential": "sequential"}


@dataclass(frozen=True)
class BlockCase:
    """One reference run, with the corrected results if the reference has a defect."""

    family: str
    group: str
    params: dict[str, Any]
    sampler: str
    data: dict[str, Any]

    @property
    def prompt(self) -> list[int]:
        return list(self.data["prompt"])

    @property
    def output(self) -> list[int]:
        return list(self.data["output"])

    @property
    def block_size(self) -> int:
        return int(self.params.get("block_length") or self.params["block_size"])

    @property
    def edits(self) -> bool:
        """Return whether the reference edits tokens."""
        return "editing_threshold" in self.params

    @property
    def ends(self) -> tuple[int, ...]:
        stop = self.data.get("stop", self.data.get("eos", 251 if self.family == "llada2_moe" else []))
        return tuple(stop) if isinstance(stop, list) else (stop,)

    @property
    def forwards(self) -> list[tuple[int, bool]]:
        """Return the rows of each forward, and whether it stored final keys and values."""
        if self.family in ("sdar", "stable_diffcoder"):
            return [(rows, bool(store)) for _, rows, _, store in self.data["fwd"]]
        return [(rows, kind in ("prefill", "commit")) for kind, _, rows, _ in self.data["fwd"]]

    def decoder(self, **options: Any) -> Decoder:
        """Return the decoder of d3mlx, changed by `options`."""
        p = self.params
        if self.family == "sdar":
            alg = ALGS[p["remasking_strategy"]]
            threshold = p["confidence_threshold"] if alg == "dynamic" else None
            own = {"alg": alg, "threshold": threshold, "steps": p["denoising_steps"], "commits": "separate"}
            return SDAR(**own | {"block_size": p["block_length"]} | options).build(self.family)
        if self.family == "llada2_moe":
            own = {"threshold": p["threshold"], "block_size": p["block_length"], "commits": "separate"}
            if self.edits:
                steps = p["block_length"] // p.get("num_to_transfer", 1)
                own |= {"editing_threshold": p["editing_threshold"], "max_post_steps": p.get("max_post_steps", 16)}
            else:
                steps = min(p["steps"], p["gen_length"] // p.get("minimal_topk", 1))
            return LLaDA2(**own | {"steps": steps} | options).build(self.family)
        if self.family == "stable_diffcoder":
            own = {"threshold": p["threshold"], "block_size": p["block_length"], "commits": "separate"}
            if p["threshold"] is None:
                own |= {"alg": "static", "steps": p["steps"] * p["block_length"] // p["gen_length"]}
            return StableDiffCoder(**own | options).build(self.family)
        own = {"threshold": p["threshold"], "sub_block_size": p["small_block_size"], "block_size": p["block_size"]}
        cached = "on" if p["use_block_cache"] else "off"
        return FastDLLMv2(**own | {"block_cache": cached} | options).build(self.family)

    @property
    def sampling(self) -> Sampling:
        """Return the sampling of a draw. At temperature 1 without filters, the statistics are the same as greedy's."""
        p = self.params
        temperature, top_k = p.get("temperature", 0.0), p.get("top_k") or None
        return Sampling(temperature, p.get("top_p") if temperature else None, top_k)

    def request(self, **options: Any) -> Request:
        """Return the request for this case. options: as for `decoder`."""
        new, early = len(self.output), True
        if self.family == "llada2_moe":
            new = self.params["gen_length"]
            # LLaDA2.1 continues after an end token, unless it is asked to stop.
            early = not self.edits or self.params.get("eos_early_stop", False)
        net = model(self.family)
        canvas = Canvas.for_prompt(self.prompt, new, net.args.mask_token_id, self.ends, early, self.block_size)
        if self.family == "stable_diffcoder":
            canvas = self.short_canvas(canvas)
        made = Request(net, canvas, self.decoder(**options), self.sampling)
        if self.sampler == "inverse_cdf":
            made.drawing = InverseCDF(made.drawing, self)
        elif made.drawing.sampling.temperature:
            made.drawing = Argmax(made.drawing)
            made.greedy = False
        return made

    def short_canvas(self, canvas: Canvas) -> Canvas:
        """Return the canvas without the masks that complete its last block, as the published code has it."""
        length = len(self.prompt) + int(self.params["gen_length"])
        tokens, given = canvas.tokens[:length], canvas.given[:length]
        return Canvas(tokens, given, canvas.mask_id, canvas.end_ids, block_size=canvas.block_size)


@functools.cache
def block_cases(family: str) -> list[BlockCase]:
    return [
        BlockCase(family, group["name"], group["params"], group.get("sampler", "argmax"), data)
        for file in FILES[family]
        for group in json.loads((FOLDER / family / f"{file}.json").read_text())["groups"]
        for data in group["cases"]
    ]


def corrected(case: BlockCase) -> BlockCase:
    """Return the case with the results of the corrected algorithm."""
    return replace(case, data=case.data | case.data.get("corrected", {}))


class Argmax(Drawing):
    """A draw that always takes the most likely token, whose probability depends on temperature and filters."""

    def __init__(self, drawing: Drawing):
        super().__init__(drawing.sampling, drawing.noise, drawing.filtered, drawing.top_k_first)

    def choice(self, logits: mx.array, positions: Ints, mask_id: int) -> Draw | mx.array:
        return Draw.of(positions, 0.0, 0, 0)


class InverseCDF(Argmax):
    """The formula that replaced the random numbers of the reference runs: one number per row of the open part.

    part: size of the open part of a block. calls: draws so far. The recording of one case begins after three draws.
    """

    part: int
    calls: int

    def __init__(self, drawing: Drawing, case: BlockCase):
        super().__init__(drawing)
        late = (case.group, len(case.prompt)) == ("temp1_topp.9_t.9_sampled", 32)
        object.__setattr__(self, "part", case.params.get("small_block_size", case.block_size))
        object.__setattr__(self, "calls", 3 if late else 0)

    @property
    def greedy(self) -> bool:
        return False

    def choice(self, logits: mx.array, positions: Ints, mask_id: int) -> Draw | mx.array:
        object.__setattr__(self, "calls", self.calls + 1)
        rows = positions.astype(np.int64) % self.part
        uniform = ((rows + 1) * 2654435761 + self.calls * 1013904223) % 2**32
        chances = np.array(mx.softmax(logits.astype(mx.float32), axis=-1)).astype(np.float64)
        tokens = (chances.cumsum(axis=-1) <= (uniform[:, None] + 0.5) / 2**32).sum(axis=-1)
        return mx.array((np.arange(logits.shape[-1])[None, :] == tokens[:, None]).astype(np.float32))


def run_together(cases: Sequence[BlockCase], **options: Any) -> list[tuple[Request, list[Step]]]:
    """Decode the cases, which share a model, in the same forwards. options: as for `BlockCase.decoder`."""
    requests = [case.request(**options) for case in cases]
    steps: list[list[Step]] = [[] for _ in requests]
    while live := [i for i, request in enumerate(requests) if not request.done]:
        for i, each in zip(live, step(model(cases[0].family), [requests[i] for i in live]), strict=True):
            steps[i].append(each)
    return list(zip(requests, steps, strict=True))


def decided(each: Step, edits: bool) -> list[int]:
    """Return the positions that got their first token in a step."""
    written = each.written
    return (written.positions[written.before == MASK] if edits else each.positions).tolist()


def edits_of(each: Step) -> list[list[int]]:
    """Return position, old token and new token of each edit of a step."""
    changed = each.written.before != MASK
    return [[int(value) for value in edit] for edit in zip(*(part[changed] for part in each.written), strict=True)]


def mismatch(case: BlockCase, request: Request, steps: list[Step]) -> str | None:
    """Return the first difference from the reference run, or None.

    A forward that the answer no longer needs is left out: the commit of the last block, and what follows an end token.
    """
    answer = request.canvas.answer.tolist()
    if answer != case.output[: len(answer)] or (len(answer) < len(case.output) and answer[-1] not in case.ends):
        return f"answer {answer}, reference {case.output}"
    if case.family == "llada2_moe":
        # The reference has no cache, so it has no forwards that only fill one.
        steps = [each for each in steps if each.kind not in ("prefill", "commit")]
    count = len(steps)
    accepted = [[int(p) for p in positions] for positions in case.data["accepted"]]
    ours = [[] if each.kind in ("prefill", "commit") else decided(each, case.edits) for each in steps]
    if case.edits and (edited := [edits_of(each) for each in steps]) != case.data["edited"][:count]:
        return f"edited {edited}, reference {case.data['edited']}"
    if ours != accepted[:count]:
        first = next(i for i, positions in enumerate(ours) if positions != accepted[i])
        return f"forward {first} accepted {ours[first]}, reference {accepted[first]}"
    end = len(case.prompt) + len(answer)
    if any(position < end for positions in accepted[count:] for position in positions):
        return f"only {count} forwards, reference {len(accepted)}"
    if case.edits and count != case.data["n_forward"]:
        return f"{count} forwards, reference {case.data['n_forward']}"
    if not case.ends and count + (case.family in ("sdar", "stable_diffcoder")) != case.data["n_forward"]:
        return f"{count} forwards, reference {case.data['n_forward']}"
    if case.family == "llada2_moe":
        return None if all(each.rows == case.block_size for each in steps) else "a step computed other rows"
    forwards = [(each.rows, each.kind in ("prefill", "commit")) for each in steps]
    if forwards != case.forwards[:count]:
        return f"rows {forwards}, reference {case.forwards[:count]}"
    return None
