"""A loaded model with the settings of the command line, for the commands that generate text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli.common import DecodeSettings, notice
from d3mlx.cli.loading import load_opened
from d3mlx.decoding.options import Options
from d3mlx.decoding.sampling import Sampling
from d3mlx.generation import check_decoder, check_length, check_request
from d3mlx.version import versions


@dataclass(frozen=True)
class ModelFlags:
    """The flags that choose a model. A model of None means the demonstration model."""

    model: str | None
    adapter_path: str | None
    revision: str | None

    @property
    def name(self) -> str:
        """Return the name that the user gave, or the folder of the demonstration model."""
        return EMBEDDED if self.model is None else self.model


@dataclass(frozen=True)
class Session:
    """A loaded model and the effective settings of a run."""

    flags: ModelFlags
    settings: DecodeSettings
    model: Any
    tokenizer: Any
    decoder: Options
    sampling: Sampling

    @property
    def title(self) -> str:
        """Return the names of the model and the decoder, for a heading."""
        shown = "demonstration model" if self.flags.model is None else Path(self.flags.name).name
        return f"{shown} · {self.settings.decoder}"

    def config(self, **details: Any) -> dict[str, Any]:
        """Return the effective configuration for JSON, with more `details`."""
        return {
            "model": self.flags.name,
            "adapter_path": self.flags.adapter_path,
            "revision": self.flags.revision,
            "decoder": self.settings.decoder,
            "sampling": self.sampling,
            **details,
            "versions": versions(),
        }


def check_settings(settings: DecodeSettings, stop: tuple[str, ...] = ()) -> None:
    """Raise ConfigError for settings that are wrong with every model."""
    settings.check()
    check_request(settings.max_tokens, stop)


def start(flags: ModelFlags, settings: DecodeSettings, recommended: bool) -> Session:
    """Return the session. Wrong settings are refused before the weights are loaded. Raises D3Error.

    recommended: settings that were not given are those of the model card.
    """
    checkpoint = open_checkpoint(fetch(flags.name, flags.revision))
    settings = settings.filled(flags.name, checkpoint) if recommended else settings.of_family(checkpoint.family)
    decoder, sampling = settings.build(), settings.sampling()
    check_decoder(decoder.build(checkpoint.family), checkpoint.family, checkpoint.args)
    check_length(settings.max_tokens, checkpoint.args)
    if flags.model is None:
        notice()
    model, tokenizer = load_opened(flags.name, checkpoint, flags.adapter_path)
    return Session(flags, settings, model, tokenizer, decoder, sampling)
