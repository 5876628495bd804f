"""Properties of a model family that the rest of the runtime reads. Each family's file has one `Traits` record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Attention = Literal["bidirectional", "block-causal"]
"""What a position attends to: every position, or its own block and the blocks before it."""


@dataclass(frozen=True)
class D3LLMDefaults:
    """How d3LLM's published code decodes a family.

    threshold: entropy in nats. inclusive: an entropy equal to it passes. best_always: the lowest entropy of all blocks
    always passes. force_likeliest: forced progress takes the most likely token instead of the drawn one. one_at_a_time:
    the cache delay of a block begins after the block before it is cached.
    """

    threshold: float
    inclusive: bool
    best_always: bool
    force_likeliest: bool
    one_at_a_time: bool


@dataclass(frozen=True)
class Recommended:
    """Settings that the model card of a checkpoint recommends.

    names: a regular expression to search for in the checkpoint's name, ignoring case. temperature, top_p, end_penalty:
    see `Sampling`. max_tokens: maximum length of an answer. options: options of each decoder, by the decoder's name.
    """

    names: str
    temperature: float | None = None
    top_p: float | None = None
    end_penalty: float | None = None
    max_tokens: int | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


MissingFields = Callable[[dict[str, Any], Sequence[str]], dict[str, Any]]


def no_fields(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the missing fields of a family whose published config.json is complete."""
    return {}


@dataclass(frozen=True)
class Traits:
    """One model family. Other files read this record instead of checking the name of the family.

    name: name of the family. architectures: its names in config.json. shift: the logits of row p predict the token at
        p + shift.
    attention: what a position attends to. decoder: name of the default decoder.
    template: Jinja text of the chat template, for folders without one. turn_end: the token that ends a turn.
    sampler: the model's own sampler, a quota of tokens per block or a schedule of times over the whole canvas.
    carries_quota: Fast-dLLM without a cache carries a quota over the whole canvas. With a cache, a block's full pass
        commits only its first position. The factor rule is not available.
    d3llm: defaults of d3LLM's decoder. None for a block-causal model, which it cannot decode.
    plain_questions: evaluations use plain text with worked examples, and coding answers start empty. Otherwise they use
        the chat template without examples, and coding answers have a given beginning.
    hides_padding: in distillation, positions that no trajectory reaches count as hidden.
    counts_padding: in distillation, padding counts as response when the number of blocks is computed.
    missing_fields: returns the fields that a config.json lacks, given its content and names of the checkpoint.
    recommended: recommendations of model cards; the first one with matching names applies.
    """

    name: str
    architectures: tuple[str, ...]
    shift: int
    template: str
    turn_end: str
    attention: Attention = "bidirectional"
    decoder: str = "selective"
    sampler: Literal["quota", "schedule"] = "quota"
    carries_quota: bool = False
    d3llm: D3LLMDefaults | None = None
    plain_questions: bool = False
    hides_padding: bool = False
    counts_padding: bool = False
    recommended: tuple[Recommended, ...] = ()
    missing_fields: MissingFields = no_fields

    def recommended_for(self, *names: str) -> Recommended | None:
        """Return the recommendation for a checkpoint with one of these names, or None."""
        for each in self.recommended:
            if any(re.search(each.names, name, re.IGNORECASE) for name in names):
                return each
        return None
