"""The half of `speed`, `prompt_length` and `row_target` that decodes, in the environment of one version of the package.

It reads one JSON object per line, a name of a function here and its arguments, and writes one with the result. It uses
only names that versions since the first one have, so the same file measures all of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import d3mlx
from d3mlx import D3LLM, FastDLLM, Generation, Vanilla, load
from d3mlx.models import transformer

Selective: Any = getattr(d3mlx, "Selective", None) or d3mlx.D3MLX  # type: ignore[attr-defined]
"""The default decoder, which had another name in early versions."""

DECODERS: dict[str, Any] = {
    "selective": Selective(),
    "d3llm": D3LLM(),
    "fast-dllm, dual cache": FastDLLM("dual"),
    "fast-dllm, prefix cache": FastDLLM("prefix"),
    "vanilla": Vanilla(),
}
NEW = 256
CONTEXT = 8192


@cache
def loaded(folder: str) -> tuple[Any, Any]:
    return load(folder)


def solve(model: str, decoder: str, question: str) -> dict[str, Any]:
    """Decode one question. Return the text, the numbers of tokens and forwards, the rows of each, and the seconds.

    Seconds are those of the processor.
    """
    return decode(model, DECODERS[decoder], question)


def solve_with(model: str, options: dict[str, Any], question: str) -> dict[str, Any]:
    """Decode one question with the default decoder and these options. Return what `solve` returns."""
    return decode(model, Selective(**options), question)


def decode(model: str, preset: Any, question: str) -> dict[str, Any]:
    """Decode one question. Return what `solve` returns."""
    generation = Generation(*loaded(model), [{"role": "user", "content": question}], preset)
    began = time.process_time()
    steps = list(generation)
    seconds = time.process_time() - began
    return {
        "text": generation.text,
        "tokens": steps[-1].stats.tokens,
        "forwards": steps[-1].stats.forwards,
        "rows": [step.rows for step in steps],
        "seconds": seconds,
    }


@contextmanager
def without_attention() -> Iterator[None]:
    """Replace attention by its queries inside the block."""
    original: Any = transformer.attention
    users = [module for module in sys.modules.values() if getattr(module, "attention", None) is original]

    def nothing(queries: Any, *_: Any, **__: Any) -> Any:
        return queries

    for module in users:
        module.attention = nothing  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in users:
            module.attention = original  # type: ignore[attr-defined]


def step_time(model: str, prompt: int, steps: int) -> dict[str, Any]:
    """Return the median processor seconds of a step that commits one token, with and without attention, and its rows.

    prompt: length of the prompt, whose rows the first step computes; that step does not count. It may exceed the
    context of the model, because only the time matters.
    """
    ids = [1 + i % 400 for i in range(prompt)]
    network, _ = loaded(model)
    network.args.max_sequence_length = CONTEXT
    preset = Selective(threshold=0.0)

    def measured() -> tuple[float, int]:
        run = iter(Generation(network, None, ids, preset, max_tokens=NEW, early_stop=False))
        next(run)
        samples, rows = [], 0
        for _ in range(steps):
            began = time.process_time()
            rows = next(run).rows
            samples.append(time.process_time() - began)
        return sorted(samples)[steps // 2], rows

    whole, rows = measured()
    with without_attention():
        rest, _ = measured()
    return {"whole": whole, "rest": rest, "rows": rows}


FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {"solve": solve, "solve_with": solve_with, "step_time": step_time}


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        sys.stdout.write(json.dumps(FUNCTIONS[task.pop("function")](**task)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
