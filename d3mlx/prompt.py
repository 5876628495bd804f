"""Encoding of prompts as token ids. A prompt is text, chat messages for the chat template, or token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from d3mlx.errors import PromptError
from d3mlx.panics import panics_as
from d3mlx.text import decoder_of

Prompt = str | Sequence[int] | Sequence[dict[str, str]]
"""Text, encoded without a template; chat messages, formatted with the chat template; or token ids."""


def encode(tokenizer: Any, prompt: Prompt, context: int | None = None) -> list[int]:
    """Return the token ids of a prompt.

    context: positions of the model; a text that cannot fit is refused before the slow tokenization. Raises PromptError
    for another type, an empty prompt, text without a tokenizer, and messages that the chat template refuses.
    """
    if not isinstance(prompt, str):
        items: Any = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        several = isinstance(items, Sequence) and not isinstance(items, bytes)
        if several and items and all(isinstance(item, Integral) for item in items):
            return [int(item) for item in items]
        if not (several and all(map(is_message, items))):
            raise PromptError("A prompt must be text, token ids, or messages: dicts whose role and content are texts.")
    if not len(prompt):
        raise PromptError("The prompt is empty.")
    size = size_of(prompt)
    if tokenizer is None:
        raise PromptError("Without a tokenizer the prompt must be a list of token ids.")
    if context is not None and size > context * decoder_of(tokenizer).longest:
        raise PromptError(
            f"The prompt has {size:,} bytes, which cannot fit this model's context of {context} tokens. Shorten it."
        )
    with panics_as(PromptError, "The tokenizer cannot encode this prompt", "Check the tokenizer's files."):
        ids = text_ids(tokenizer, prompt) if isinstance(prompt, str) else message_ids(tokenizer, prompt)
    if not ids and not isinstance(prompt, str):
        raise PromptError("The chat template gives no text for these messages. Give the prompt as text with --raw.")
    if not ids:
        raise PromptError("The prompt is empty.")
    return ids


def text_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def message_ids(tokenizer: Any, messages: Any) -> list[int]:
    """Return the ids of chat messages and the beginning of an answer. Raises PromptError."""
    if tokenizer.chat_template is None:
        raise PromptError("This model has no chat template. Give the prompt as text (--raw on the command line).")
    plain: Any = {"add_generation_prompt": True, "return_dict": False, "tokenizer_kwargs": {"verbose": False}}
    try:
        return list(tokenizer.apply_chat_template(list(messages), **plain))
    except Exception as error:
        # A template is a program of the checkpoint: it may refuse messages, not parse, or fail in any way.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PromptError(f"The chat template cannot take these messages: {reason.rstrip('.')}.") from error


def is_message(item: object) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str)


def size_of(prompt: Any) -> int:
    """Return the bytes of a prompt's text.

    Raises PromptError for the stray bytes that Python reads from a command line as lone surrogates.
    """
    messages = [{"content": prompt}] if isinstance(prompt, str) else prompt
    texts = [text for message in messages for text in message.values() if isinstance(text, str)]
    try:
        return sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:
        raise PromptError("The prompt contains bytes that are not UTF-8 text. Use UTF-8.") from None
