"""The errors that a user can cause. The message says what is wrong and what to do; the CLI prints it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def listed(choices: Iterable[Any]) -> str:
    """Return sorted choices as an error names them, separated by commas."""
    return ", ".join(map(str, sorted(choices)))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")


def is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of a library in Rust, for example tokenizers. It is not an Exception."""
    return type(error).__name__ == "PanicException"


class D3Warning(UserWarning):
    """A warning whose message is meant for the user."""


class D3Error(Exception):
    """Base of every error whose message is meant for the user."""


class CheckpointError(D3Error):
    """A checkpoint folder is missing or damaged, or has an architecture that this runtime does not support."""


class ConfigError(D3Error):
    """A setting is out of range, or two settings cannot be combined."""


class PromptError(D3Error):
    """The prompt cannot be decoded: it is empty, too long, or contains invalid tokens."""


class MemoryLimitError(D3Error):
    """The model does not fit this machine's memory."""


class DataError(D3Error):
    """A row of data for training, prompting or evaluation cannot be used; the message names its file and line."""
