"""The tokens that end an answer and a turn of a chat."""

from __future__ import annotations

from typing import Any

from d3mlx.models import DiffusionModel, traits_of


def end_ids(model: DiffusionModel, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end an answer: those of config.json first, then those of the tokenizer."""
    configured = model.args.eos_token_id
    known = list(configured) if isinstance(configured, list) else [configured]
    if tokenizer is not None:
        known += sorted(tokenizer.eos_token_ids)
    return tuple(dict.fromkeys(known))


def turn_end(model: DiffusionModel, tokenizer: Any) -> int:
    """Return the id that ends a turn: the family's token for it, or else the end token of config.json."""
    token = tokenizer.get_vocab().get(traits_of(model.family).turn_end)
    return int(end_ids(model, tokenizer)[0] if token is None else token)
