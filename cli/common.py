"""What several commands need: parameters that mean the same everywhere, numbers and sizes as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

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
    str,
    typer.Option(
        "--decoder",
        help="How tokens commit: selective, d3llm, fast-dllm or vanilla. `d3mlx decoders` describes them.",
        rich_help_panel=DECODER,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens of an answer.", show_default="the model's own, else 256", rich_help_panel=DECODER),
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", "--temp", help="0 takes the most likely token.", rich_help_panel=SAMPLING),
]
TopP = Annotated[
    float | None,
    typer.Option(help="Sample from the most likely tokens up to this probability.", rich_help_panel=SAMPLING),
]
TopK = Annotated[
    int | None, typer.Option(help="Sample from this many of the most likely tokens.", rich_help_panel=SAMPLING)
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same text.", rich_help_panel=SAMPLING)]

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
