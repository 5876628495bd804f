"""Consumers of a run. Each gets its start, every Step, and its end. None of them decodes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from d3mlx import Generation, Step
from d3mlx.cells import Cells
from d3mlx.cli.render.profile import profile_record
from d3mlx.files import check_writable, write_text
from d3mlx.profiling import Profile, profiled
from d3mlx.replay import canvas_record, page, progress_record
from d3mlx.request import Stats
from d3mlx.terminal import write, write_json


def forwards_text(stats: Stats) -> str:
    """Return the number of forwards in words."""
    return f"{stats.forwards} forward{'s' * (stats.forwards != 1)}"


@dataclass(frozen=True)
class Report:
    """Measurements of a run.

    first_seconds: time of the first forward, which processes the prompt. seconds: time of all forwards. peak_memory: in
    bytes. profile: time per stage, with --profile only.
    """

    prompt_tokens: int
    stats: Stats
    first_seconds: float
    seconds: float
    peak_memory: int
    profile: Profile | None = None

    def lines(self) -> list[str]:
        """Return the three lines that mlx-lm prints, and one about denoising."""
        stats = self.stats
        return [
            f"Prompt: {self.prompt_tokens} tokens, {self.prompt_tokens / self.first_seconds:.3f} tokens-per-sec",
            f"Generation: {stats.tokens} tokens, {stats.tokens / self.seconds:.3f} tokens-per-sec",
            f"Peak memory: {self.peak_memory / 1e9:.3f} GB",
            f"Denoising: {forwards_text(stats)}, {stats.tokens_per_forward:.2f} tokens/forward, "
            f"{stats.rows_per_token:.1f} rows/token",
        ]


class Consumer(Protocol):
    """Object that receives the Steps of a run."""

    def start(self) -> None: ...

    def step(self, step: Step) -> None: ...

    def finish(self, report: Report) -> None: ...

    def close(self) -> None:
        """Finish and clean up. This is the last call, also after an error or Ctrl-C."""
        ...


class Plain:
    """Consumer that writes the growing committed prefix to standard output, and statistics to standard error."""

    def start(self) -> None:
        pass

    def step(self, step: Step) -> None:
        write(sys.stdout, step.text)
        sys.stdout.flush()

    def finish(self, report: Report) -> None:
        sys.stdout.write("\n")
        sys.stdout.flush()
        write(sys.stderr, "\n".join(["=" * 10, *report.lines()]) + "\n")

    def close(self) -> None:
        pass


def plain_value(value: Any) -> Any:
    """Return a value for strict JSON: infinities become text, arrays lists, and dataclasses dicts with their type."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: plain_value(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **named}
    if isinstance(value, np.ndarray):
        return [plain_value(item) for item in value.tolist()]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    return value


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON for standard output. It is ASCII if standard output is not UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, indent=indent, ensure_ascii=not utf8, allow_nan=False)


def step_record(step: Step) -> dict[str, Any]:
    return {
        "step": step.index,
        "kind": step.kind,
        "positions": step.positions.tolist(),
        "tokens": step.tokens.tolist(),
        "entropies": plain_value(np.round(step.entropies.astype(float), 6)),
        "filled": step.filled.tolist(),
        "edits": [list(edit) for edit in zip(*(part.tolist() for part in step.written), strict=True)],
        "rows": step.rows,
        "round": step.round,
        "text": step.text,
    }


def result_record(config: Mapping[str, Any], generation: Generation, report: Report) -> dict[str, Any]:
    """Return the effective configuration, the text and tokens, and the statistics of a run."""
    stats = report.stats
    return {
        "config": plain_value(config),
        "text": generation.text,
        "tokens": generation.canvas.answer.tolist(),
        **document_record(generation),
        "stats": {
            "prompt_tokens": report.prompt_tokens,
            **asdict(stats),
            "tokens_per_forward": stats.tokens_per_forward,
            "rows_per_token": stats.rows_per_token,
            "seconds": report.seconds,
            "peak_memory": report.peak_memory,
        },
        **({"profile": profile_record(report.profile)} if report.profile else {}),
    }


def document_record(generation: Generation) -> dict[str, Any]:
    """Return the text of each hole of a document, and their sizes in each round. Empty for a prompt."""
    if generation.document is None:
        return {}
    return {"fills": [asdict(fill) for fill in generation.fills], "rounds": generation.sizes}


class JsonLines:
    """Consumer that writes one JSON object per step, then one with the configuration and the result."""

    def __init__(self, config: Mapping[str, Any], generation: Generation):
        self.config, self.generation = config, generation

    def start(self) -> None:
        pass

    def step(self, step: Step) -> None:
        self.write(step_record(step))

    def finish(self, report: Report) -> None:
        self.write(result_record(self.config, self.generation, report))

    def close(self) -> None:
        pass

    @staticmethod
    def write(record: dict[str, Any]) -> None:
        write_json(sys.stdout, json_text(record) + "\n")
        sys.stdout.flush()


PAGES = (".html", ".htm")
"""Suffixes of a trace that is written as a page."""


class Trace:
    """Consumer that writes the complete run to one file at the end. It replaces an existing file.

    The file is JSON, or a page that plays the run if its name has a suffix of `PAGES`.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], generation: Generation):
        self.path, self.config, self.generation = path, config, generation
        self.cells = Cells(generation, generation.tokenizer)
        self.steps: list[dict[str, Any]] = []

    def start(self) -> None:
        # A folder that is not writable must fail now, not after a long run.
        check_writable(self.path)

    def step(self, step: Step) -> None:
        self.steps.append(step_record(step) | progress_record(self.cells, step))

    def finish(self, report: Report) -> None:
        canvas = self.generation.canvas
        record = result_record(self.config, self.generation, report)
        record["prompt"] = canvas.tokens[: canvas.prompt_length].tolist()
        record["canvas"] = canvas_record(self.generation)
        record["steps"] = self.steps
        is_page = self.path.suffix.lower() in PAGES
        write_text(self.path, page(record) if is_page else json.dumps(record, allow_nan=False) + "\n")

    def close(self) -> None:
        pass


def follow(generation: Generation, consumers: list[Consumer], profile: Profile | None = None) -> None:
    """Run a generation and give every Step to the consumers. Fill the profile if there is one."""
    try:
        for consumer in consumers:
            consumer.start()
        with profiled(profile):
            report = replace(timed(generation, consumers), profile=profile)
        for consumer in consumers:
            consumer.finish(report)
    finally:
        for consumer in consumers:
            consumer.close()


def timed(generation: Generation, consumers: list[Consumer]) -> Report:
    """Give every Step of a run to the consumers, and return the measurements."""
    began = time.perf_counter()
    first_seconds = 0.0
    for step in generation:
        first_seconds = first_seconds or time.perf_counter() - began
        for consumer in consumers:
            consumer.step(step)
    seconds, peak = time.perf_counter() - began, int(mx.get_peak_memory())
    return Report(int(generation.canvas.given.sum()), generation.stats, first_seconds, seconds, peak)
