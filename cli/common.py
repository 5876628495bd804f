"""Code that several commands share: their common parameters, and texts of numbers and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from d3mlx.checkpoints.checkpoint import Checkpoint
from d3mlx.cli.render.printer import Screen
from d3mlx.decoding.options import Options
from d3mlx.decoding.presets import PRESETS, preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of
from d3mlx.models.traits import Recommended

MODEL, DECODER, SAMPLING, OUTPUT = "Model", "Decoder", "Sampling", "Output"
"""Panels of the help pages."""

MODEL_HELP = "Folder, Hugging Face id, or a bundled model: embedded or teacher."

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help=MODEL_HELP, show_default="embedded", rich_help_panel=MODEL),
]
AdapterPath = Annotated[str | None, typer.Option(help="Folder with LoRA adapters.", rich_help_panel=MODEL)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.", rich_help_panel=MODEL)]
System = Annotated[
    str | None, typer.Option("--system-prompt", "--system", help="System message.", rich_help_panel=MODEL)
]
DecoderName = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        help=f"Decoding method: {', '.join(PRESETS)}. `d3mlx decoders` describes them.",
        show_default="from the model's family",
        rich_help_panel=DECODER,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="Maximum number of tokens of an answer.",
        show_default="from the model, or 256",
        rich_help_panel=DECODER,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "--temp",
        help="Sampling temperature. 0 selects the most likely token.",
        show_default="0",
        rich_help_panel=SAMPLING,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Sample only from the most likely tokens whose probabilities add up to this value.",
        rich_help_panel=SAMPLING,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(help="Sample only from this number of most likely tokens.", rich_help_panel=SAMPLING),
]
EndPenalty = Annotated[
    float | None,
    typer.Option(
        help="Subtract this value from the logits of the end token. inf forbids the end token.",
        show_default="0",
        rich_help_panel=SAMPLING,
    ),
]
UseRecommended = Annotated[
    bool,
    typer.Option(
        "--recommended",
        help="Use the settings of the model card. `d3mlx info` shows them. Your own flags have priority.",
        rich_help_panel=DECODER,
    ),
]
Seed = Annotated[
    int, typer.Option(help="Seed of sampling. The same seed gives the same text.", rich_help_panel=SAMPLING)
]


JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Write the results to this JSON file. - is standard output.", rich_help_panel=OUTPUT),
]
Plot = Annotated[
    Path | None, typer.Option(help="Write the curve of accuracy to this SVG file.", rich_help_panel=OUTPUT)
]
Axis = Annotated[
    Literal["tpf", "rpt"],
    typer.Option(
        "--x",
        help="Axis of the plot: tpf (tokens per forward) or rpt (rows per token).",
        metavar="<str>",
        rich_help_panel=OUTPUT,
    ),
]
YMax = Annotated[
    float | None,
    typer.Option(help="Reference accuracy of AUP, in percent.", show_default="best measured", rich_help_panel=OUTPUT),
]


def recommended_for(name: str, checkpoint: Checkpoint) -> Recommended | None:
    """Return the recommended settings of a checkpoint, or None.

    A checkpoint is known by the name that the user gave, the name of its folder, or the name in its config.
    """
    named = checkpoint.config.get("_name_or_path")
    names = [Path(name).name, checkpoint.folder.name, *([named] if isinstance(named, str) else [])]
    return traits_of(checkpoint.family).recommended_for(*names)


@dataclass(frozen=True)
class DecodeSettings:
    """Settings from flags or a model card. None means the default. options: options of the decoder, by name."""

    decoder: str | None
    temperature: float | None
    top_p: float | None
    end_penalty: float | None
    max_tokens: int | None
    options: dict[str, Any]
    top_k: int | None = None
    seed: int = 0

    def sampling(self) -> Sampling:
        """Return the sampling settings. Raises ConfigError."""
        return Sampling(self.temperature or 0.0, self.top_p, self.top_k, self.seed, self.end_penalty or 0.0)

    def build(self) -> Options:
        """Return the decoder, which must be known, with its options. Raises ConfigError."""
        assert self.decoder is not None
        return preset(self.decoder, **self.options)

    def check(self) -> None:
        """Raise ConfigError for wrong settings, before the model and its default decoder are known."""
        if self.decoder is not None:
            self.build()
        self.sampling()

    def of_family(self, family: str) -> DecodeSettings:
        """Return the settings with the default decoder of a family if none was given."""
        return replace(self, decoder=self.decoder or traits_of(family).decoder)

    def filled(self, name: str, checkpoint: Checkpoint) -> DecodeSettings:
        """Return the settings with the values of the model card for flags that were not given.

        If the card has options for a decoder, it recommends that decoder. Raises ConfigError if there is no card.
        """
        card = recommended_for(name, checkpoint)
        if card is None:
            raise ConfigError(f"There are no recommended settings for {Path(name).name}. Run without --recommended.")
        own = {name: getattr(self, name) for name in ("temperature", "top_p", "end_penalty", "max_tokens")}
        merged = {key: getattr(card, key) if value is None else value for key, value in own.items()}
        decoder = self.decoder or next(iter(card.options), traits_of(checkpoint.family).decoder)
        return replace(self, decoder=decoder, **merged, options=card.options.get(decoder, {}) | self.options)


NOTICE = (
    "This is the bundled demonstration model. It solves word problems like those of d3mlx demo. "
    "For a real model, add --model GSAI-ML/LLaDA-8B-Instruct."
)


def notice(text: str = NOTICE) -> None:
    """Write a notice to standard error. The default says that the answer comes from the demonstration model."""
    console = Screen(stderr=True)
    console.print(text, soft_wrap=not console.is_terminal, markup=False)


def human_size(count: float) -> str:
    """Return a number of bytes as text, in bytes, kB, MB or GB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def numbers(option: str, text: str | None, kind: Callable[[str], float]) -> list[float]:
    """Return the distinct numbers of an option such as 0.1,0.3,0.5. Raises BadParameter."""
    if text is None:
        return []
    try:
        return list(dict.fromkeys(kind(item) for item in text.split(",")))
    except ValueError:
        example = "64,32" if kind is int else "0.1,0.3"
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers, for example {example}.", param_hint=option
        ) from None
