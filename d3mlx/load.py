"""Checkpoints: a local folder or a hub id becomes a model and a tokenizer."""

from __future__ import annotations

from typing import Any

from d3mlx.models import DiffusionModel


def load(
    path_or_repo: str, adapter_path: str | None = None, lazy: bool = False, revision: str | None = None
) -> tuple[DiffusionModel, Any]:
    """Model and tokenizer of a checkpoint."""
    raise NotImplementedError
