"""What the rest of the runtime needs to know about a model family. Each family's file has one record of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class D3LLMDefaults:
    """How d3LLM's published code decodes a family.

    threshold: entropy in nats. inclusive: an entropy equal to it passes. best_always: the lowest entropy of all passes.
    force_likeliest: forced progress takes the most likely token instead of the drawn one. one_at_a_time: blocks settle
    one after another before they join the cache.
    """

    threshold: float
    inclusive: bool
    best_always: bool
    force_likeliest: bool
    one_at_a_time: bool


@dataclass(frozen=True)
class Traits:
    """One model family. No other file asks which family a model is.

    name: of the family. architectures: the names in config.json that it runs. shift: the logits of row p predict the
        token at p + shift.
    template: Jinja text of the chat template, for folders without one. turn_end: the token that ends a turn.
    sampler: the model's own one, a quota of tokens per block or a schedule of times over the whole canvas.
    carries_quota: Fast-dLLM without a cache carries a quota over the whole canvas; with a cache, a block's full pass
        commits its first position only; it has no factor rule.
    d3llm: defaults of d3LLM's decoder.
    plain_questions: evaluations ask plain text with worked examples and let code be written from its beginning.
        Otherwise they use the chat template, no examples, and an answer that has begun.
    hides_padding: in distillation, positions that no trajectory reaches count as hidden.
    counts_padding: in distillation, the padding counts as response when its blocks are counted.
    """

    name: str
    architectures: tuple[str, ...]
    shift: int
    template: str
    turn_end: str
    sampler: Literal["quota", "schedule"]
    carries_quota: bool
    d3llm: D3LLMDefaults
    plain_questions: bool
    hides_padding: bool
    counts_padding: bool
