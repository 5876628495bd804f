"""`d3mlx generate`: generate text from a prompt and show it while it resolves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx import Generation
from d3mlx.api import with_suffix
from d3mlx.cli import common
from d3mlx.cli.common import MODEL, OUTPUT
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.render.consumers import Consumer, JsonLines, Plain, Trace, follow
from d3mlx.cli.render.live import LiveView
from d3mlx.cli.render.profile import show_profile
from d3mlx.cli.render.scores import check_outputs
from d3mlx.cli.session import ModelFlags, check_settings, start
from d3mlx.cli.standard_input import read_standard_input
from d3mlx.errors import ConfigError, PromptError
from d3mlx.profiling import Profile
from d3mlx.prompt import Prompt


def read_prompt(argument: str, system: str | None, raw: bool) -> Prompt:
    """Return the prompt as text (--raw) or as chat messages. Raises PromptError or ConfigError."""
    text = read_standard_input().decode(errors="surrogateescape") if argument == "-" else argument
    if not text.strip():
        raise PromptError("The prompt is empty.")
    if raw and system is not None:
        raise ConfigError("--system-prompt needs the chat template. Run without --raw and --suffix.")
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
    system: common.System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Use prompts without the chat template.", rich_help_panel=MODEL)
    ] = False,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Text after the answer. The answer fills the hole between the prompt and this text, without the chat "
            "template.",
            rich_help_panel=MODEL,
        ),
    ] = None,
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
        typer.Option(
            help="Write the complete run to this file: JSON, or a page that plays it if the name ends with .html.",
            rich_help_panel=OUTPUT,
            dir_okay=False,
        ),
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
    stops = tuple(stop or ())
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options, top_k, seed)
    check_settings(settings, stops)
    content = read_prompt(given, system, raw or suffix is not None)
    if trace is not None:
        check_outputs(trace)
    session = start(ModelFlags(model, adapter_path, revision), settings, recommended)
    generation = Generation(
        session.model,
        session.tokenizer,
        with_suffix(content, suffix),
        session.decoder,
        max_tokens=session.settings.max_tokens,
        sampling=session.sampling,
        early_stop=not no_early_stop,
        stop=stops,
    )
    config = session.config(
        prompt=content,
        suffix=suffix,
        policies=generation.decoder,
        max_tokens=generation.max_tokens,
        early_stop=not no_early_stop,
        stop=stops,
    )
    consumers: list[Consumer] = [Trace(trace, config, generation)] if trace is not None else []
    if json_lines:
        consumers.append(JsonLines(config, generation))
    elif plain or not sys.stdout.isatty():
        consumers.append(Plain())
    else:
        consumers.append(LiveView(generation, session.tokenizer, session.title))
    measured = Profile() if profile else None
    follow(generation, consumers, measured)
    if measured is not None:
        show_profile(measured)
