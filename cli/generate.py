"""`d3mlx generate`: generate text from a prompt and show it while it resolves."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx import Generation
from d3mlx.api import check_decoder, check_length, check_request
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli import common
from d3mlx.cli.common import MODEL, OUTPUT, notice
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.loading import load_opened
from d3mlx.cli.render.consumers import Consumer, JsonLines, Plain, Trace, follow
from d3mlx.cli.render.live import LiveView
from d3mlx.cli.render.profile import show_profile
from d3mlx.cli.render.scores import check_outputs
from d3mlx.errors import ConfigError, PromptError
from d3mlx.profiling import Profile
from d3mlx.prompt import Prompt
from d3mlx.version import versions

MOST_BYTES = 1 << 26
"""Largest size of a prompt from standard input. No model has such a context, and a device has no end."""


def read_prompt(argument: str, system: str | None, raw: bool) -> Prompt:
    """Return the prompt as text (--raw) or as chat messages. Raises PromptError or ConfigError."""
    if argument == "-" and sys.stdin is None:
        raise PromptError("Standard input is closed. Give the prompt as an argument.")
    text = argument
    if argument == "-":
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise PromptError(f"Standard input has more than {MOST_BYTES:,} bytes. Shorten the prompt.")
        text = content.decode(errors="surrogateescape")
    if not text.strip():
        raise PromptError("The prompt is empty.")
    if raw and system is not None:
        raise ConfigError("--system needs the chat template. Run without --raw.")
    if raw:
        return text
    messages = [{"role": "system", "content": system}] if system is not None else []
    return [*messages, {"role": "user", "content": text}]


def one_prompt(argument: str | None, option: str | None) -> str:
    """Return the prompt from the argument or --prompt. Raises BadParameter if both or none are given."""
    if (argument is None) == (option is None):
        raise typer.BadParameter(
            "give it either as the argument or with --prompt. - reads standard input.", param_hint="the prompt"
        )
    return argument if argument is not None else str(option)


def prompt_text(prompt: Prompt) -> str:
    """Return the text of a prompt, or of its last message."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])  # type: ignore[index, call-overload]


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Return the words that are not in the vocabulary of the demonstration model."""
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", text))
    known = set(tokenizer.get_vocab())
    return [word for word in words if len(word) > 1 and not {word, f"Ġ{word}"} & known]


@takes_decoder_options()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Prompt. - reads it from standard input.", show_default=False)
    ] = None,
    prompt_option: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Prompt, as an option. - reads standard input.", rich_help_panel=MODEL),
    ] = None,
    model: common.Model = None,
    adapter_path: common.AdapterPath = None,
    revision: common.Revision = None,
    system: Annotated[
        str | None, typer.Option("--system", "--system-prompt", help="System message.", rich_help_panel=MODEL)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Use prompts without the chat template.", rich_help_panel=MODEL)
    ] = False,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End the answer before this text. You can repeat this option.", rich_help_panel=MODEL),
    ] = None,
    max_tokens: common.MaxTokens = None,
    decoder: common.DecoderName = None,
    *,
    options: dict[str, Any],
    no_early_stop: Annotated[
        bool,
        typer.Option(
            "--no-early-stop",
            help="Decode all masks, also those after an end token. Their text is never shown.",
            rich_help_panel=common.DECODER,
        ),
    ] = False,
    recommended: common.UseRecommended = False,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    end_penalty: common.EndPenalty = None,
    seed: common.Seed = 0,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Stream text only, without the live view.", rich_help_panel=OUTPUT),
    ] = False,
    json_lines: Annotated[
        bool,
        typer.Option("--json", help="Write one JSON object per step, then the result.", rich_help_panel=OUTPUT),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write the complete run to this JSON file.", rich_help_panel=OUTPUT, dir_okay=False),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show the time per stage.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Generate text and watch it resolve.

    The canvas starts as masked tokens. Every forward commits the tokens that the decoder accepts. In a terminal, d3mlx
    shows the canvas. In a pipe, it streams the text as soon as all tokens before it are committed.

    Each decoder has more options than this page shows. `d3mlx decoders NAME` lists them. They are flags here.

    Example: d3mlx generate "Mia has 3 bags with 12 apples in each. How many apples are there?"
    """
    given = one_prompt(prompt, prompt_option)
    if json_lines and plain:
        raise ConfigError("Give --json or --plain, not both.")
    name = EMBEDDED if model is None else model
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options)
    settings.check()
    settings.sampling(top_k, seed)
    content, stops = read_prompt(given, system, raw), tuple(stop or ())
    check_request(settings.max_tokens, stops)
    if trace is not None:
        check_outputs(trace)
    checkpoint = open_checkpoint(fetch(name, revision))
    settings = settings.filled(name, checkpoint) if recommended else settings.of_family(checkpoint.family)
    chosen, sampling = settings.build(), settings.sampling(top_k, seed)
    # Refuse wrong options before the weights are loaded.
    check_decoder(chosen.build(checkpoint.family), checkpoint.family, checkpoint.args)
    check_length(settings.max_tokens, checkpoint.args)
    if model is None:
        notice()
    loaded, tokenizer = load_opened(name, checkpoint, adapter_path)
    if model is None and (strange := unknown_words(tokenizer, prompt_text(content))):
        notice(f"It does not know the words {', '.join(strange[:5])}. Try d3mlx demo for its problems.")
    generation = Generation(
        loaded,
        tokenizer,
        content,
        chosen,
        max_tokens=settings.max_tokens,
        sampling=sampling,
        early_stop=not no_early_stop,
        stop=stops,
    )
    config = {
        "model": name,
        "adapter_path": adapter_path,
        "revision": revision,
        "prompt": content,
        "decoder": settings.decoder,
        "policies": generation.decoder,
        "sampling": sampling,
        "max_tokens": generation.new_tokens,
        "early_stop": not no_early_stop,
        "stop": stops,
        "versions": versions(),
    }
    consumers: list[Consumer] = [Trace(trace, config, generation)] if trace is not None else []
    if json_lines:
        consumers.append(JsonLines(config, generation))
    elif plain or not sys.stdout.isatty():
        consumers.append(Plain())
    else:
        shown = "demonstration model" if model is None else Path(name).name
        consumers.append(LiveView(generation, tokenizer, f"{shown} · {settings.decoder}"))
    measured = Profile() if profile else None
    follow(generation, consumers, measured)
    if measured is not None:
        show_profile(measured)
