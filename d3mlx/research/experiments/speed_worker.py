"""The half of `speed` that decodes: it runs in the environment of one version of the package.

It reads one JSON object per line, {"model": folder, "decoder": name, "question": text, "max_tokens": number}, and
writes one with the answer and the processor seconds. It uses only names that versions since the first one have, so the
same file measures all of them.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from typing import Any

import d3mlx
from d3mlx import D3LLM, FastDLLM, Generation, Vanilla, load

Selective: Any = getattr(d3mlx, "Selective", None) or d3mlx.D3MLX  # type: ignore[attr-defined]
"""The default decoder, which had another name in early versions."""

DECODERS: dict[str, Any] = {
    "selective": Selective(row_multiple=8),
    "d3llm": D3LLM(),
    "fast-dllm, dual cache": FastDLLM("dual"),
    "fast-dllm, prefix cache": FastDLLM("prefix"),
    "vanilla": Vanilla(),
}


@cache
def loaded(folder: str) -> tuple[Any, Any]:
    return load(folder)


def solve(model: str, decoder: str, question: str) -> dict[str, Any]:
    """Decode one question. Return the text, the numbers of tokens, forwards and rows, and the processor seconds."""
    generation = Generation(*loaded(model), [{"role": "user", "content": question}], DECODERS[decoder])
    began = time.process_time()
    *_, last = generation
    seconds = time.process_time() - began
    stats = last.stats
    return {
        "text": generation.text,
        "tokens": stats.tokens,
        "forwards": stats.forwards,
        "rows": stats.rows,
        "seconds": seconds,
    }


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(solve(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
