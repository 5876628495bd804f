"""Prompts in records of data. Every error names the file and the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3mlx.data.conversations import messages_of
from d3mlx.data.records import read_rows
from d3mlx.data.stories.stories import problem
from d3mlx.distill.trajectories import Question
from d3mlx.errors import DataError, PromptError
from d3mlx.models import DiffusionModel
from d3mlx.prompt import Prompt, encode

EMBEDDED = "embedded"
"""Name of the built-in word problems as a source of data."""

EMBEDDED_ROWS = 2500
"""Default number of built-in word problems."""


def prompt_of(location: str, row: dict[str, Any], raw: bool) -> Prompt:
    """Return the prompt of a row: messages, or a text, as one user message unless `raw`. Raises DataError."""
    if "messages" in row:
        if raw:
            raise DataError(f"{location}: cannot use chat messages with --raw. Give a prompt, or leave out --raw.")
        messages = messages_of(location, row["messages"])
        if messages[-1]["role"] == "assistant":
            raise DataError(f"{location}: the last message is from the assistant. It must be from the user.")
        return messages
    text = row.get("prompt", row.get("question"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{location}: the record has no prompt text and no messages; give one of them.")
    return text if raw else [{"role": "user", "content": text}]


def ids_of(location: str, tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the token ids of a prompt. Raises DataError if it cannot be encoded."""
    try:
        return encode(tokenizer, prompt)
    except PromptError as error:
        raise DataError(f"{location}: {error}") from error


def check_length(location: str, model: DiffusionModel, ids: list[int], new_tokens: int) -> None:
    """Raise DataError if prompt and answer exceed the model's context, or if the prompt contains mask tokens."""
    if len(ids) + new_tokens > model.args.context:
        raise DataError(
            f"{location}: the prompt ({len(ids)} tokens) and {new_tokens} new tokens exceed the model's context of "
            f"{model.args.context}."
        )
    if model.args.mask_token_id in ids:
        raise DataError(f"{location}: the prompt contains the mask token. Remove it.")


def questions(
    source: str, model: DiffusionModel, tokenizer: Any, new_tokens: int, raw: bool, limit: int | None
) -> list[Question]:
    """Return the tokenized prompts of a JSONL or parquet file, or of built-in problems. Raises DataError."""
    if source == EMBEDDED:
        rows: Iterator[tuple[str, dict[str, Any]]] = embedded_rows(limit or EMBEDDED_ROWS)
    else:
        rows = read_rows(Path(source))
    out = []
    for number, (location, row) in enumerate(rows):
        if limit is not None and number >= limit:
            break
        ids = ids_of(location, tokenizer, prompt_of(location, row, raw))
        check_length(location, model, ids, new_tokens)
        answer = row.get("answer", row.get("gt_answer"))
        out.append(Question(number, ids, None if answer is None else str(answer)))
    return out


def embedded_rows(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield built-in training problems as rows with a prompt, a completion and an answer."""
    for i in range(count):
        task = problem(i)
        yield f"problem {i}", {"prompt": task.question, "completion": task.solution, "answer": task.answer}


def vocabulary_fingerprint(tokenizer: Any) -> str:
    """Return a hash of all tokens and their ids."""
    pairs = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
