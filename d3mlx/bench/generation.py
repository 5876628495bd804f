"""Speed of whole answers: several decoders on the same prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from d3mlx.data.stories.stories import problem
from d3mlx.decoding.decoder import Preset
from d3mlx.evaluate.fields import rows_with
from d3mlx.generation import Generation
from d3mlx.profiling import Profile, profiled
from d3mlx.prompt import Prompt

BUILT_IN = 100
"""Number of built-in word problems. No run of a minute needs more."""


@dataclass
class Decoded:
    """Totals of one decoder. tokens: of the answers, without prompts."""

    prompts: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    forwards: int = 0
    rows: int = 0
    seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return the ratios: tokens per second, tokens per forward, rows per token, seconds per forward."""
        return {
            "tokens_per_second": self.tokens / self.seconds,
            "tokens_per_forward": self.tokens / self.forwards,
            "rows_per_token": self.rows / self.tokens if self.tokens else 0.0,
            "seconds_per_forward": self.seconds / self.forwards,
        }


@dataclass(frozen=True)
class Speaker:
    """A model, its tokenizer, and the length of its answers (None: the model's own)."""

    model: Any
    tokenizer: Any
    max_tokens: int | None

    def generation(self, prompt: Prompt, preset: Preset) -> Generation:
        """Return a new generation. Raises PromptError, ConfigError."""
        return Generation(self.model, self.tokenizer, prompt, preset, max_tokens=self.max_tokens)


def prompts_of(path: Path | None, tokenizer: Any) -> list[Prompt]:
    """Return the prompts of a JSONL or parquet file with a field "prompt" or "question", or built-in word problems.

    The chat template is applied if the tokenizer has one. Raises DataError.
    """
    if path is None:
        texts = [problem(index, "held-out").question for index in range(BUILT_IN)]
    else:
        texts = [row["prompt"] for row in rows_with(path, {"prompt|question": str})]
    if tokenizer.chat_template is None:
        return list(texts)
    return [[{"role": "user", "content": text}] for text in texts]


def check_prompts(speaker: Speaker, prompts: Sequence[Prompt], presets: Mapping[str, Preset]) -> None:
    """Raise PromptError or ConfigError before the measurement if a prompt or preset cannot be decoded."""
    for preset in presets.values():
        speaker.generation(prompts[0], preset)
    for prompt in prompts[1:]:
        speaker.generation(prompt, next(iter(presets.values())))


def decode_all(
    speaker: Speaker,
    prompts: Sequence[Prompt],
    presets: Mapping[str, Preset],
    seconds: float,
    profiles: Mapping[str, Profile] | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> dict[str, Decoded]:
    """Return the totals by preset after about `seconds`. Every decoder decodes each prompt, one or more.

    The first forward of each decoder runs once before and does not count. profiles: filled here, by preset name.
    """
    totals = {name: Decoded() for name in presets}
    end = time.perf_counter() + seconds
    for number, prompt in enumerate(prompts, 1):
        for name, preset in presets.items():
            tell(f"prompt {number}, {name}")
            if number == 1:
                for _ in islice(speaker.generation(prompt, preset), 1):
                    pass
            with profiled(profiles[name] if profiles else None):
                decode_and_count(totals[name], speaker.generation(prompt, preset))
        if time.perf_counter() >= end:
            break
    return totals


def decode_and_count(total: Decoded, generation: Generation) -> None:
    """Run a generation to its end and add it to the totals."""
    began = time.perf_counter()
    stats = None
    for step in generation:
        stats = step.stats
    assert stats is not None, "a canvas starts with at least one mask, so there is at least one step"
    total.seconds += time.perf_counter() - began
    total.prompts += 1
    total.prompt_tokens += generation.canvas.prompt_length
    total.tokens += stats.tokens
    total.forwards += stats.forwards
    total.rows += stats.rows
