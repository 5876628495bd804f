"""`d3mlx generate`: options into a request, the request into a run, its Steps to whoever listens."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from d3mlx.cli.common import loading, notice

if TYPE_CHECKING:
    from d3mlx import Generation, Sampling
    from d3mlx.api import Prompt
    from d3mlx.cli.consumers import Consumer, Report
    from d3mlx.decoding.presets import Preset
    from d3mlx.stages import Profile

COMMON, SAMPLE, OUTPUT = "Model and prompt", "Sampling (every decoder)", "Output"
VANILLA = "vanilla: the models' own samplers"
FAST = "fast-dllm, d3llm and d3mlx: parallel decoding"
D3 = "d3llm and d3mlx: several blocks at once"


@dataclass(frozen=True)
class Request:
    """Everything that a run depends on."""

    model: str
    adapter_path: str | None
    revision: str | None
    prompt: Prompt
    decoder: str
    preset: Preset
    sampling: Sampling
    max_tokens: int | None
    early_stop: bool
    stop: tuple[str, ...]

    def config(self, generation: Generation) -> dict[str, Any]:
        """The effective configuration, every default resolved."""
        from d3mlx.version import versions

        return {
            "model": self.model,
            "adapter_path": self.adapter_path,
            "revision": self.revision,
            "prompt": self.prompt,
            "decoder": self.decoder,
            "policies": generation.decoder,
            "sampling": self.sampling,
            "max_tokens": generation.new_tokens,
            "early_stop": self.early_stop,
            "stop": self.stop,
            "versions": versions(),
        }


def read_prompt(argument: str, system: str | None, raw: bool) -> Prompt:
    """The prompt as text (--raw) or as chat messages."""
    from d3mlx.errors import ConfigError, PromptError

    if argument == "-" and sys.stdin is None:
        raise PromptError("Standard input is closed; give the prompt as an argument.")
    text = sys.stdin.buffer.read().decode(errors="surrogateescape") if argument == "-" else argument
    if not text.strip():
        raise PromptError("The prompt is empty.")
    if raw and system is not None:
        raise ConfigError("--system belongs to the chat template, which --raw leaves out.")
    if raw:
        return text
    messages = [{"role": "system", "content": system}] if system is not None else []
    return [*messages, {"role": "user", "content": text}]


def run(request: Request, make_consumers: Any, profile: Profile | None) -> None:
    """Load, generate, tell the consumers; fill the profile if there is one."""
    from d3mlx import Generation, load
    from d3mlx.cli.profile import show_profile
    from d3mlx.stages import profiled

    with loading(request.model):
        model, tokenizer = load(request.model, request.adapter_path, revision=request.revision)
    generation = Generation(
        model,
        tokenizer,
        request.prompt,
        request.preset,
        max_tokens=request.max_tokens,
        sampling=request.sampling,
        early_stop=request.early_stop,
        stop=request.stop,
    )
    consumers: list[Consumer] = make_consumers(request, generation, tokenizer)
    try:
        for consumer in consumers:
            consumer.start()
        with profiled(profile):
            report = replace(follow(generation, consumers), profile=profile)
        for consumer in consumers:
            consumer.finish(report)
    finally:
        for consumer in consumers:
            consumer.close()
    if profile is not None:
        show_profile(profile)


def follow(generation: Generation, consumers: list[Consumer]) -> Report:
    """Hand every Step on; time the run."""
    from d3mlx.cli.consumers import Report, peak_memory

    began = time.perf_counter()
    first_seconds = 0.0
    stats = None
    for step in generation:
        if stats is None:
            first_seconds = time.perf_counter() - began
        stats = step.stats
        for consumer in consumers:
            consumer.step(step)
    assert stats is not None, "a canvas starts with at least one mask, so there is at least one step"
    seconds = time.perf_counter() - began
    return Report(generation.canvas.prompt_length, stats, first_seconds, seconds, peak_memory())


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; - reads it from standard input.", show_default=False)
    ] = None,
    named: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt, as mlx-lm takes it.", rich_help_panel=COMMON)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder, hub id, or embedded, teacher or pairs.", rich_help_panel=COMMON),
    ] = None,
    adapter_path: Annotated[str | None, typer.Option(help="Folder of LoRA adapters.", rich_help_panel=COMMON)] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel=COMMON)
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "--system-prompt", help="System message.", rich_help_panel=COMMON)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Take the prompt as it is, without the chat template.", rich_help_panel=COMMON)
    ] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Limit of the answer's length, 256 unless the model says; for all but d3mlx the canvas, too.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    decoder: Annotated[
        str, typer.Option("--decoder", "-d", help="vanilla, fast-dllm, d3llm or d3mlx.", rich_help_panel=COMMON)
    ] = "d3mlx",
    no_early_stop: Annotated[
        bool,
        typer.Option(
            "--no-early-stop",
            help="Decode the whole canvas even after an end token; what follows it is never shown.",
            rich_help_panel=COMMON,
        ),
    ] = False,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.", rich_help_panel=COMMON)
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", "--temp", help="0 takes the likeliest token.", rich_help_panel=SAMPLE)
    ] = 0.0,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens up to this share.", rich_help_panel=SAMPLE)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from this many of the likeliest tokens.", rich_help_panel=SAMPLE)
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same text.", rich_help_panel=SAMPLE)] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps for the answer, one per token unless given. Also fast-dllm on Dream with --rows full.",
            rich_help_panel=VANILLA,
        ),
    ] = None,
    alg: Annotated[
        str | None,
        typer.Option(
            help="LLaDA: low_confidence or random. Dream: entropy, maskgit_plus, topk_margin or origin.",
            rich_help_panel=VANILLA,
        ),
    ] = None,
    alg_temp: Annotated[
        float | None, typer.Option(help="Dream: randomness in the choice of positions.", rich_help_panel=VANILLA)
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="Dream: last time of the schedule, 0.001.", rich_help_panel=VANILLA)
    ] = None,
    cfg_scale: Annotated[
        float | None, typer.Option(help="LLaDA: classifier-free guidance, 0 for none.", rich_help_panel=VANILLA)
    ] = None,
    rows: Annotated[
        Literal["full", "prefix", "dual", "delayed"] | None,
        typer.Option(
            help="What a step computes. fast-dllm: full, prefix, dual (default). d3llm: full, delayed (default). "
            "d3mlx always computes the needed ones.",
            rich_help_panel=FAST,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="fast-dllm: least probability, 0.9. d3llm, d3mlx: highest entropy in nats, LLaDA 0.5, Dream 0.4.",
            rich_help_panel=FAST,
        ),
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(help="fast-dllm on LLaDA: the factor rule instead of a threshold.", rich_help_panel=FAST),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(help="Tokens in a block, 32; with d3mlx 8. Also vanilla on LLaDA.", rich_help_panel=FAST),
    ] = None,
    kv_bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of cached keys and values: 8, 6, 5, 4, 3 or 2; unquantized if not given.", rich_help_panel=FAST
        ),
    ] = None,
    kv_group_size: Annotated[
        int | None, typer.Option(help="Group size of quantized keys and values, 64.", rich_help_panel=FAST)
    ] = None,
    block_add: Annotated[
        float | None,
        typer.Option(help="Share of a block that opens the next one, 0.1; d3mlx: by --favor.", rich_help_panel=D3),
    ] = None,
    favor: Annotated[
        Literal["rows", "forwards"] | None,
        typer.Option(
            help="d3mlx: what to save, rows (--block-add 0.5) or forwards (0.1); by the chip: M5 and later, forwards.",
            rich_help_panel=D3,
        ),
    ] = None,
    activation: Annotated[
        float | None,
        typer.Option(help="Share of a block that makes the next one commit in every step, 0.95.", rich_help_panel=D3),
    ] = None,
    cache_delay: Annotated[
        int | None, typer.Option(help="d3llm: steps until a complete block is cached, 2.", rich_help_panel=D3)
    ] = None,
    refresh_interval: Annotated[
        int | None, typer.Option(help="Steps between full passes: d3llm 10000, d3mlx none.", rich_help_panel=D3)
    ] = None,
    recent: Annotated[
        int | None,
        typer.Option(help="d3mlx: steps for which a committed token is computed again, 1.", rich_help_panel=D3),
    ] = None,
    near: Annotated[
        int | None,
        typer.Option(help="d3mlx: and with it the tokens at most so many positions away, 4.", rich_help_panel=D3),
    ] = None,
    row_multiple: Annotated[
        int | None,
        typer.Option(
            help="d3mlx: row counts are rounded up to a multiple of this, what d3mlx bench found best here, else 32.",
            rich_help_panel=D3,
        ),
    ] = None,
    ahead: Annotated[
        int | None,
        typer.Option(
            help="d3mlx: blocks of masks beyond the active ones as the canvas grows, 256 masks unless given.",
            rich_help_panel=D3,
        ),
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="One JSON object a step, then the result.", rich_help_panel=OUTPUT)
    ] = False,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Text only, streamed, as when the output is piped.", rich_help_panel=OUTPUT),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write the whole run to this JSON file, replacing one of that name.",
            rich_help_panel=OUTPUT,
            dir_okay=False,
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Time by stage of the loop, to standard error.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Generate text and watch it resolve.

    The canvas starts as masked tokens; every forward commits those that the decoder accepts. In a terminal the canvas
    is shown live, elsewhere the text streams as soon as everything before it is committed.
    """
    from d3mlx.api import check_request
    from d3mlx.decoding.presets import PRESETS, preset
    from d3mlx.decoding.sampling import Sampling
    from d3mlx.errors import ConfigError
    from d3mlx.loader import EMBEDDED
    from d3mlx.stages import Profile

    argument = prompt if named is None else named
    if argument is None or None not in (prompt, named):
        raise typer.BadParameter(
            "give it once, as the argument or with --prompt; - reads it from standard input.", param_hint="the prompt"
        )
    if json_lines and plain:
        raise ConfigError("Give --json or --plain, not both.")
    knobs = {
        "steps": steps,
        "alg": alg,
        "alg_temp": alg_temp,
        "eps": eps,
        "cfg_scale": cfg_scale,
        "rows": rows,
        "threshold": threshold,
        "factor": factor,
        "block_size": block_size,
        "kv_bits": kv_bits,
        "kv_group_size": kv_group_size,
        "block_add": block_add,
        "favor": favor,
        "activation": activation,
        "cache_delay": cache_delay,
        "refresh_interval": refresh_interval,
        "recent": recent,
        "near": near,
        "row_multiple": row_multiple,
        "ahead": ahead,
    }
    given = {name: value for name, value in knobs.items() if value is not None}
    ignored = set(given) - set(PRESETS[decoder].__dataclass_fields__) if decoder in PRESETS else set()
    if ignored:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(ignored))
        raise ConfigError(f"The decoder {decoder} has no use for {options}; see d3mlx generate --help.")
    request = Request(
        model=model or EMBEDDED,
        adapter_path=adapter_path,
        revision=revision,
        prompt=read_prompt(argument, system, raw),
        decoder=decoder,
        preset=preset(decoder, **given),
        sampling=Sampling(temperature, top_p, top_k, seed),
        max_tokens=max_tokens,
        early_stop=not no_early_stop,
        stop=tuple(stop or ()),
    )
    if model is None:
        notice()
    check_request(request.max_tokens, request.stop)

    def consumers(request: Request, generation: Generation, tokenizer: Any) -> list[Consumer]:
        from d3mlx.cli.consumers import JsonLines, Plain, Trace
        from d3mlx.cli.live import LiveView

        chosen: list[Consumer] = []
        config = request.config(generation)
        if trace is not None:
            chosen.append(Trace(trace, config, generation))
        if json_lines:
            chosen.append(JsonLines(config, generation))
        elif plain or not sys.stdout.isatty():
            chosen.append(Plain())
        else:
            name = "demonstration model" if model is None else Path(request.model).name
            chosen.append(LiveView(generation, tokenizer, f"{name} · {decoder}"))
        return chosen

    run(request, consumers, Profile() if profile else None)
