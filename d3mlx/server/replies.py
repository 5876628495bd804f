"""The JSON that clients get: OpenAI's objects and chunks, and statistics under `x_d3mlx`."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from d3mlx.server.worker import Progress

Kind = Literal["chat.completion", "text_completion", "fim"]
"""Protocol of a reply. fim: the chunks of /v1/fim/completions, which some clients read as texts and others as chats."""


@dataclass(frozen=True)
class Reply:
    """One reply to a client. ignored: fields of the request without an effect."""

    kind: Kind
    model: str
    decoder: str
    ignored: tuple[str, ...] = ()
    began: float = field(default_factory=time.time)
    number: str = field(default_factory=lambda: uuid.uuid4().hex)

    def head(self, chunk: bool) -> dict[str, Any]:
        """Return the fields that every object of this reply has."""
        name = "text_completion" if self.kind == "fim" else self.kind
        prefix = "chatcmpl" if self.kind == "chat.completion" else "cmpl"
        return {
            "id": f"{prefix}-{self.number}",
            "object": f"{name}.chunk" if chunk and self.kind == "chat.completion" else name,
            "created": int(self.began),
            "model": self.model,
        }

    def complete(self, progress: Progress) -> dict[str, Any]:
        """Return the whole reply."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": progress.finish_reason, "logprobs": None}
        if self.kind != "text_completion":
            choice["message"] = {"role": "assistant", "content": progress.text}
        if self.kind != "chat.completion":
            choice["text"] = progress.text
        return {**self.head(False), "choices": [choice], "usage": usage(progress), "x_d3mlx": self.figures(progress)}

    def chunk(self, text: str, first: bool, finish_reason: str | None = None) -> dict[str, Any]:
        """Return a chunk of a stream with new text."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self.kind != "text_completion":
            choice["delta"] = {**({"role": "assistant"} if first else {}), "content": text}
        if self.kind != "chat.completion":
            choice["text"] = text
        return {**self.head(True), "choices": [choice]}

    def ending(self, progress: Progress) -> dict[str, Any]:
        """Return the fields that only the last chunk with text has."""
        return {"x_d3mlx": self.figures(progress)}

    def closing(self, progress: Progress, include_usage: bool) -> list[str]:
        """Return the events after the last chunk with text."""
        done = "data: [DONE]\n\n"
        return [event({**self.head(True), "choices": [], "usage": usage(progress)}), done] if include_usage else [done]

    def figures(self, progress: Progress) -> dict[str, Any]:
        """Return the statistics of the run."""
        stats = progress.stats
        return {
            "decoder": self.decoder,
            "forwards": stats.forwards,
            "rows": stats.rows,
            "tokens_per_forward": stats.tokens_per_forward,
            "rows_per_token": stats.rows_per_token,
            "seconds": round(time.time() - self.began, 4),
            "ignored": list(self.ignored),
        }


@dataclass(frozen=True)
class InfillReply(Reply):
    """A reply in the form of llama.cpp's /infill. prompt: the text before the hole."""

    prompt: str = ""

    def complete(self, progress: Progress) -> dict[str, Any]:
        """Return the whole reply."""
        word, ended = progress.stopped_by is not None, progress.finish_reason == "stop"
        milliseconds = 1000 * (time.time() - self.began)
        return {
            "content": progress.text,
            "stop": True,
            "stop_type": "word" if word else "eos" if ended else "limit",
            "stopping_word": progress.stopped_by or "",
            "model": self.model,
            "prompt": self.prompt,
            "tokens_cached": progress.cached_tokens,
            "tokens_evaluated": progress.prompt_tokens,
            "tokens_predicted": progress.stats.tokens,
            "truncated": False,
            "timings": {
                "prompt_n": progress.prompt_tokens,
                "predicted_n": progress.stats.tokens,
                "predicted_ms": round(milliseconds, 3),
            },
            "x_d3mlx": self.figures(progress),
        }

    def chunk(self, text: str, first: bool, finish_reason: str | None = None) -> dict[str, Any]:
        """Return a chunk of a stream with new text."""
        return {"content": text, "stop": finish_reason is not None}

    def ending(self, progress: Progress) -> dict[str, Any]:
        """Return no fields. llama.cpp's chunks have only the text, and whether it is the last."""
        return {}

    def closing(self, progress: Progress, include_usage: bool) -> list[str]:
        """Return no events, because the last chunk already says that it is the last one."""
        return []


def usage(progress: Progress) -> dict[str, Any]:
    """Return the numbers of tokens."""
    return {
        "prompt_tokens": progress.prompt_tokens,
        "completion_tokens": progress.stats.tokens,
        "total_tokens": progress.prompt_tokens + progress.stats.tokens,
        "prompt_tokens_details": {"cached_tokens": progress.cached_tokens},
    }


def event(value: Any) -> str:
    """Return a value as a server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def failure(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI's API writes it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}
