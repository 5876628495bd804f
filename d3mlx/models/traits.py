"""What the rest of the runtime needs to know about a model family. Each family's file has one record of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal


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
class Recommended:
    """Settings that the model card of a checkpoint recommends.

    names: a regular expression, found in the checkpoint's name whatever its case. temperature, top_p, end_penalty: see
    `Sampling`. max_tokens: length of an answer. options: of decoders by name.
    """

    names: str
    temperature: float | None = None
    top_p: float | None = None
    end_penalty: float | None = None
    max_tokens: int | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


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
    recommended: what model cards recommend; the first one whose names match counts.
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
    recommended: tuple[Recommended, ...] = ()

    def recommended_for(self, *names: str) -> Recommended | None:
        """Return what is recommended for a checkpoint with one of these names."""
        for each in self.recommended:
            if any(re.search(each.names, name, re.IGNORECASE) for name in names):
                return each
        return None
