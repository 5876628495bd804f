"""Loading of a model for a command: the download first, then a spinner while the weights load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3mlx.checkpoints.checkpoint import Checkpoint, open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import get_weights, load
from d3mlx.cli.render.progress import status


def load_opened(name: str, checkpoint: Checkpoint, adapter_path: str | None = None) -> tuple[Any, Any]:
    """Return the model and tokenizer of an opened checkpoint. name: the name that the user gave.

    Nothing else is shown before the progress bars of the download are closed.
    """
    get_weights(checkpoint)
    with status(f"Loading {Path(name).name} ..."):
        return load(checkpoint.folder, adapter_path)


def load_model(name: str, adapter_path: str | None = None, revision: str | None = None) -> tuple[Any, Any, Path]:
    """Return the model, the tokenizer and the folder of a checkpoint. name: folder, Hub id or bundled model."""
    checkpoint = open_checkpoint(fetch(name, revision))
    return *load_opened(name, checkpoint, adapter_path), checkpoint.folder
