"""The errors a user can cause. Each carries one sentence that says what to do; the CLI prints it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def listed(choices: Iterable[Any]) -> str:
    """Return choices as an error names them: in order, with commas between them."""
    return ", ".join(map(str, sorted(choices)))


class D3Error(Exception):
    """Base of every error whose message is meant for the user."""


class CheckpointError(D3Error):
    """A checkpoint folder is missing, damaged, or of an architecture this runtime does not know."""


class ConfigError(D3Error):
    """A setting is out of range, or two settings do not go together."""


class PromptError(D3Error):
    """The prompt cannot be decoded: empty, too long, or holding tokens it must not hold."""


class MemoryLimitError(D3Error):
    """The model does not fit this machine's memory."""


class DataError(D3Error):
    """A row of data, for training, prompting or evaluation, cannot be used; the sentence names its file and line."""
