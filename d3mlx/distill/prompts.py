"""Prompts in rows of data. Every error names the file and the line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3mlx.api import Prompt, encode
from d3mlx.data.problems import problem
from d3mlx.data.records import read_rows
from d3mlx.distill.trajectories import Question
from d3mlx.errors import DataError, PromptError
from d3mlx.models import DiffusionModel

EMBEDDED = "embedded"
"""Name of the generated word problems as a source of data."""

EMBEDDED_ROWS = 2500


def messages_of(place: str, value: Any) -> list[dict[str, str]]:
    """Chat messages of a row. Raises DataError unless each has a role and a content."""
    if (
        not isinstance(value, list)
        or not value
        or not all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    ):
        raise DataError(f"{place}: messages must be a list of objects with a role and a content.")
    return [{"role": m["role"], "content": m["content"]} for m in value]


def prompt_of(place: str, row: dict[str, Any], raw: bool) -> Prompt:
    """The prompt of a row: messages, or a text that becomes one user message unless `raw`."""
    if "messages" in row:
        if raw:
            raise DataError(f"{place}: chat messages cannot be taken raw; give a prompt, or leave --raw out.")
        messages = messages_of(place, row["messages"])
        if messages[-1]["role"] == "assistant":
            raise DataError(f"{place}: the messages end with the assistant's; a prompt ends with the user's.")
        return messages
    text = row.get("prompt", row.get("question"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: the row has no prompt text and no messages.")
    return text if raw else [{"role": "user", "content": text}]


def ids_of(place: str, tokenizer: Any, prompt: Prompt) -> list[int]:
    try:
        return encode(tokenizer, prompt)
    except PromptError as error:
        raise DataError(f"{place}: {error}") from error


def check_length(place: str, model: DiffusionModel, ids: list[int], new_tokens: int) -> None:
    """Raise DataError unless prompt and answer fit the model's context and the prompt holds no mask."""
    if len(ids) + new_tokens > model.args.context:
        raise DataError(
            f"{place}: the prompt ({len(ids)} tokens) and {new_tokens} new tokens exceed the model's context of "
            f"{model.args.context}."
        )
    if model.args.mask_token_id in ids:
        raise DataError(f"{place}: the prompt holds the mask token.")


def questions(
    source: str, model: DiffusionModel, tokenizer: Any, new_tokens: int, raw: bool, limit: int | None
) -> list[Question]:
    """The prompts of a JSONL or parquet file, or the embedded problems, tokenized with the chat template."""
    if source == EMBEDDED:
        rows: Iterator[tuple[str, dict[str, Any]]] = embedded_rows(limit or EMBEDDED_ROWS)
    else:
        rows = read_rows(Path(source))
    out = []
    for number, (place, row) in enumerate(rows):
        if limit is not None and number >= limit:
            break
        ids = ids_of(place, tokenizer, prompt_of(place, row, raw))
        check_length(place, model, ids, new_tokens)
        answer = row.get("answer", row.get("gt_answer"))
        out.append(Question(number, ids, None if answer is None else str(answer)))
    return out


def embedded_rows(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Training problems as rows with a prompt, a completion and an answer."""
    for i in range(count):
        task = problem(i)
        yield f"problem {i}", {"prompt": task.question, "completion": task.solution, "answer": task.answer}


def fingerprint(tokenizer: Any) -> str:
    """Tells two vocabularies apart: a hash of every token and its id."""
    pairs = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
