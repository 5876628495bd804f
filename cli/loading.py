"""Models of commands: the download first, then a sign of life while the weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3mlx.checkpoints.checkpoint import Checkpoint, open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import get_weights, load
from d3mlx.cli.render.progress import status


def load_opened(name: str, checkpoint: Checkpoint, adapter_path: str | None = None) -> tuple[Any, Any]:
    """Return model and tokenizer of an opened checkpoint. name: by which the user called it.

    The bars of a download are closed before anything else is shown.
    """
    get_weights(checkpoint)
    with status(f"Loading {Path(name).name} ..."):
        return load(checkpoint.folder, adapter_path)


def load_model(name: str, adapter_path: str | None = None, revision: str | None = None) -> tuple[Any, Any, Path]:
    """Return a checkpoint's model, tokenizer and folder. name: folder, Hub id or bundled model."""
    checkpoint = open_checkpoint(fetch(name, revision))
    return *load_opened(name, checkpoint, adapter_path), checkpoint.folder
