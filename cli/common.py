"""What several commands need: parameters that mean the same everywhere, numbers and sizes as people write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from d3mlx.checkpoints.checkpoint import Checkpoint
from d3mlx.decoding.options import Options
from d3mlx.decoding.presets import DEFAULT, PRESETS, preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of
from d3mlx.models.traits import Recommended

MODEL, DECODER, SAMPLING, OUTPUT = "Model", "Decoder", "Sampling", "Output"
"""Panels of the help pages."""

MODEL_HELP = "Folder, Hugging Face id, or a bundled model: embedded, teacher or pairs."

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help=MODEL_HELP, show_default="embedded", rich_help_panel=MODEL),
]
AdapterPath = Annotated[str | None, typer.Option(help="Folder of LoRA adapters.", rich_help_panel=MODEL)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.", rich_help_panel=MODEL)]
DecoderName = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        help=f"How tokens commit: {', '.join(PRESETS)}. `d3mlx decoders` describes them.",
        show_default=DEFAULT,
        rich_help_panel=DECODER,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens of an answer.", show_default="the model's own, else 256", rich_help_panel=DECODER),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "--temp",
        help="0 takes the most likely token.",
        show_default="0",
        rich_help_panel=SAMPLING,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="With a temperature: sample from the most likely tokens up to this probability.", rich_help_panel=SAMPLING
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(help="With a temperature: sample from this many of the most likely tokens.", rich_help_panel=SAMPLING),
]
EndPenalty = Annotated[
    float | None,
    typer.Option(
        help="Subtract this from the logits of the end token, for longer answers; inf forbids it.",
        show_default="0",
        rich_help_panel=SAMPLING,
    ),
]
UseRecommended = Annotated[
    bool,
    typer.Option(
        "--recommended",
        help="Use the settings of the model card, which `d3mlx info` shows; your own flags win.",
        rich_help_panel=DECODER,
    ),
]
Seed = Annotated[
    int, typer.Option(help="With a temperature: the same seed gives the same text.", rich_help_panel=SAMPLING)
]


def recommended_for(name: str, checkpoint: Checkpoint) -> Recommended | None:
    """Return what is recommended for a checkpoint by the name that the user gave, its folder's, or its config's."""
    named = checkpoint.config.get("_name_or_path")
    names = [Path(name).name, checkpoint.folder.name, *([named] if isinstance(named, str) else [])]
    return traits_of(checkpoint.family).recommended_for(*names)


@dataclass(frozen=True)
class DecodeSettings:
    """How to decode, as far as flags or a model card say: None is the default.

    options: of the decoder, by name.
    """

    decoder: str | None
    temperature: float | None
    top_p: float | None
    end_penalty: float | None
    max_tokens: int | None
    options: dict[str, Any]

    def sampling(self, top_k: int | None, seed: int) -> Sampling:
        """Return how tokens are drawn. Raises ConfigError."""
        return Sampling(self.temperature or 0.0, self.top_p, top_k, seed, self.end_penalty or 0.0)

    def build(self) -> Options:
        """Return the decoder with its options. Raises ConfigError."""
        return preset(self.decoder or DEFAULT, **self.options)

    def filled(self, name: str, checkpoint: Checkpoint) -> DecodeSettings:
        """Return the settings with those that the model card recommends where no flag was given.

        A card that recommends options of a decoder recommends that decoder. Raises ConfigError if no card is known.
        """
        card = recommended_for(name, checkpoint)
        if card is None:
            raise ConfigError(f"No recommended settings are known for {Path(name).name}; leave --recommended out.")
        own = {name: getattr(self, name) for name in ("temperature", "top_p", "end_penalty", "max_tokens")}
        merged = {key: getattr(card, key) if value is None else value for key, value in own.items()}
        decoder = self.decoder or next(iter(card.options), DEFAULT)
        return DecodeSettings(decoder, **merged, options=card.options.get(decoder, {}) | self.options)


NOTICE = (
    "This is the built-in demonstration model: it solves word problems in the wordings that README.md shows. "
    "Use a real one with --model GSAI-ML/LLaDA-8B-Instruct."
)


def notice() -> None:
    """Say on standard error that the demonstration model answers, broken between words."""
    console = Console(stderr=True, highlight=False)
    console.print(NOTICE, soft_wrap=not console.is_terminal)


def human_size(count: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def numbers(option: str, text: str | None, kind: Callable[[str], float]) -> list[float]:
    """Return the numbers of an option like 0.1,0.3,0.5, each once. Raises BadParameter."""
    if text is None:
        return []
    try:
        return list(dict.fromkeys(kind(item) for item in text.split(",")))
    except ValueError:
        example = "64,32" if kind is int else "0.1,0.3"
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as {example}.", param_hint=option) from None
