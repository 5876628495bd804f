"""`d3mlx bench`: measure forwards and complete answers on this machine, or predict another machine."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from mlx_lm.utils import get_total_parameters

from d3mlx.bench import forwards, generation
from d3mlx.bench.chips import chip_named
from d3mlx.bench.cost import cost, precision
from d3mlx.bench.forwards import ROWS
from d3mlx.bench.machine import this_machine
from d3mlx.bench.roofline import FORMULA, Roofline
from d3mlx.bench.shapes import SHAPES, Sizes, random_model, skeleton
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import hollow_model
from d3mlx.cli.common import MODEL, JsonFile, Model, Revision, numbers
from d3mlx.cli.loading import load_model
from d3mlx.cli.render import measurements
from d3mlx.cli.render.measurements import show_roofline
from d3mlx.cli.render.printer import printer
from d3mlx.cli.render.profile import profile_record
from d3mlx.cli.render.progress import status
from d3mlx.cli.render.scores import check_outputs, write_json
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.presets import preset, presets_for
from d3mlx.errors import ConfigError
from d3mlx.generation import check_request
from d3mlx.models import traits_of
from d3mlx.profiling import Profile

WORK = "Measurement"
SECONDS = 60.0
CONTEXT = 512
MAX_TOKENS = 64
MOST_ROWS = 1 << 24
"""Largest number of rows or cached positions of a prediction."""
FORWARD_SHARE = 0.6
"""Share of --seconds for single forwards. The rest is for complete answers."""


@dataclass(frozen=True)
class ModelSource:
    """The model to measure: a checkpoint, or sizes for random weights. Without both, it is the bundled model."""

    model: str | None
    revision: str | None
    sizes: Sizes | None
    q_bits: int | None
    name: str


@dataclass(frozen=True)
class Answers:
    """Settings for the measurement of complete answers. presets: empty for all that the model's family can use."""

    prompts: Path | None
    presets: dict[str, Preset]
    max_tokens: int
    profile: bool


def row_counts_of(text: str | None) -> list[int]:
    """Return the row counts of an option such as 1,8,32."""
    return [int(number) for number in numbers("--row-counts", text, int)]


def sizes_of(shape: str | None, sizes: dict[str, int | None]) -> Sizes | None:
    """Return the sizes of a named shape, replaced by the given sizes, or None. Raises ConfigError."""
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if shape is None and not given:
        return None
    if shape is not None:
        if shape not in SHAPES:
            raise ConfigError(f"Unknown shape {shape!r}. Use {', '.join(SHAPES)}, or give all sizes.")
        return replace(SHAPES[shape], **given)
    missing = [f"--{name}" for name in sizes if name not in given and name != "kv_heads"]
    if missing:
        raise ConfigError(f"The sizes are incomplete. Add {', '.join(missing)}, or --shape.")
    return Sizes("llada", **({"kv_heads": given["heads"]} | given))


def presets_of(names: str) -> dict[str, Preset]:
    """Return the decoders of a list such as d3llm,d3llm:none. The cache policy comes after the colon."""
    presets: dict[str, Preset] = {}
    for name in names.split(","):
        decoder, colon, cache = name.strip().partition(":")
        presets[name.strip()] = preset(decoder, **({"cache": cache} if colon else {}))
    return presets


def model_facts(model: Any, name: str) -> dict[str, Any]:
    """Return the name, precision and sizes of a model, for the record."""
    shape = model.args.shape()
    return {
        "name": name,
        "family": model.family,
        "weights": precision(model),
        "parameters": get_total_parameters(model),
        "layers": shape.layers,
        "hidden": shape.hidden,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "ff": shape.ff,
        "experts": asdict(shape.experts) if shape.experts else None,
        "vocab": model.args.logit_width,
    }


def model_line(model: dict[str, Any]) -> str:
    """Return the facts about a model as one line."""
    size = f"{model['layers']} layers, hidden size {model['hidden']}, feed-forward {model['ff']}"
    heads = f"{model['heads']} heads, {model['kv_heads']} KV heads"
    if experts := model["experts"]:
        size += f", {experts['count']} experts of {experts['width']}, {experts['chosen']} per row"
    count = f"{model['parameters'] / 1e6:,.1f} million parameters, {model['weights']}"
    return f"Model: {model['name']} ({model['family']}), {count}, {size}, {heads}, vocabulary {model['vocab']:,}"


def predict_forwards(chip: str, source: ModelSource, context: int, rows: list[int], json_file: Path | None) -> None:
    """Print a roofline, or write it to a file. Weights are neither loaded nor downloaded. Raises ConfigError."""
    rows = rows or list(ROWS)
    if not 0 <= context <= MOST_ROWS:
        raise ConfigError(f"Invalid --context {context}. Use a number from 0 to {MOST_ROWS:,}.")
    if wrong := [count for count in rows if not 1 <= count <= MOST_ROWS]:
        raise ConfigError(f"Invalid --row-counts {wrong[0]}. Use numbers from 1 to {MOST_ROWS:,}.")
    described = chip_named(chip)
    if source.model is not None:
        model, name = hollow_model(open_checkpoint(fetch(source.model, source.revision))), source.name
    elif source.sizes is not None:
        model, name = skeleton(source.sizes, source.q_bits), source.name
    else:
        model, name = skeleton(SHAPES["llada-8b"], source.q_bits or 4), "llada-8b"
    roofline = Roofline(described, cost(model, context))
    facts = model_facts(model, name) | {"context": context}
    if json_file is not None:
        times = [{"rows": count, "seconds": roofline.seconds(count)} for count in sorted(set(rows))]
        figures = {"bandwidth_used": roofline.bandwidth, "good_counts": roofline.curve(rows).good_counts()}
        kind = {"kind": "prediction", "formula": FORMULA, "chip": asdict(described), "model": facts}
        write_json(json_file, kind | {"cost": asdict(roofline.cost)} | figures | {"forwards": times})
    if json_file != Path("-"):
        show_roofline(printer(), roofline, rows, facts)


def load_source(source: ModelSource) -> tuple[Any, Any]:
    """Return the model and its tokenizer. A model with random weights has no tokenizer."""
    if source.sizes is None:
        return load_model("embedded" if source.model is None else source.model, revision=source.revision)[:2]
    with status("Making random weights ..."):
        return random_model(source.sizes, source.q_bits), None


def measure_all(
    source: ModelSource,
    context: int | None,
    rows: list[int],
    seconds: float,
    answers: Answers | None,
    json_file: Path | None,
) -> None:
    """Load the model, measure, and print or write the results. Raises ConfigError."""
    model, tokenizer = load_source(source)
    if answers and not answers.presets:
        answers = replace(answers, presets={name: preset(name) for name in presets_for(traits_of(model.family))})
    longest = model.args.context
    if context is not None and context > longest:
        raise ConfigError(f"Invalid --context {context}. The maximum of this model is {longest}.")
    context = min(CONTEXT, longest) if context is None else context
    if rows and max(rows) > context:
        raise ConfigError(f"Invalid --row-counts {max(rows)}. The maximum is the context, {context}.")
    command, facts = shlex.join(["d3mlx", *sys.argv[1:]]), model_facts(model, source.name)
    profiles = {name: Profile() for name in answers.presets} if answers and answers.profile else {}
    totals: dict[str, generation.Decoded] = {}
    if answers:
        prompts = generation.prompts_of(answers.prompts, tokenizer)
        speaker = generation.Speaker(model, tokenizer, answers.max_tokens)
        generation.check_prompts(speaker, prompts, answers.presets)
    with status("Measuring ...") as show:
        tell = lambda what: show(f"Measuring: {what}")  # noqa: E731
        share = FORWARD_SHARE if answers else 1
        timed = forwards.measure_forwards(model, context, rows or forwards.ROWS, share * seconds, tell)
        if answers:
            left = (1 - share) * seconds
            totals = generation.decode_all(speaker, prompts, answers.presets, left, profiles or None, tell)
    if json_file is not None:
        decoded = {name: asdict(total) | total.figures() for name, total in totals.items()}
        record: dict[str, Any] = {
            "kind": "measurement",
            "command": command,
            "machine": asdict(this_machine()),
            "model": facts,
        }
        record |= {"forwards": asdict(timed) | {"prefill_speed": timed.prefill_speed}}
        record |= {"curve": timed.curve.points, "good_counts": timed.curve.good_counts(), "decoding": decoded}
        record |= {"profiles": {name: profile_record(item) for name, item in profiles.items()}}
        write_json(json_file, record)
    if json_file == Path("-"):
        return
    console = printer()
    for line in (f"$ {command}", *this_machine().lines(), model_line(facts)):
        console.print(line, soft_wrap=True, markup=False)
    measurements.show_forwards(console, timed)
    measurements.show_good_counts(console, timed.curve)
    measurements.show_repeats(console, timed)
    if answers:
        measurements.show_decoding(console, totals, answers.max_tokens)
    measurements.show_profiles(console, profiles)


def bench(
    model: Model = None,
    revision: Revision = None,
    shape: Annotated[
        str | None,
        typer.Option(help=f"Use random weights: {', '.join(SHAPES)}.", rich_help_panel=MODEL),
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Random weights: number of layers.", rich_help_panel=MODEL)] = None,
    hidden: Annotated[int | None, typer.Option(help="Random weights: hidden size.", rich_help_panel=MODEL)] = None,
    heads: Annotated[
        int | None, typer.Option(help="Random weights: number of attention heads.", rich_help_panel=MODEL)
    ] = None,
    kv_heads: Annotated[
        int | None,
        typer.Option(help="Random weights: number of KV heads.", show_default="--heads", rich_help_panel=MODEL),
    ] = None,
    ff: Annotated[int | None, typer.Option(help="Random weights: size of the MLP.", rich_help_panel=MODEL)] = None,
    vocab: Annotated[
        int | None, typer.Option(help="Random weights: size of the vocabulary.", rich_help_panel=MODEL)
    ] = None,
    q_bits: Annotated[
        int | None,
        typer.Option(help="Random weights: quantize to 2, 3, 4, 5, 6 or 8 bits.", rich_help_panel=MODEL),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Approximate duration of the measurement.", show_default=f"{SECONDS:g}", rich_help_panel=WORK
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Number of cached positions that a forward attends to.", show_default="512", rich_help_panel=WORK
        ),
    ] = None,
    row_counts: Annotated[
        str | None,
        typer.Option(
            help="Numbers of rows to measure, for example 1,8,32.", show_default="1 to 256", rich_help_panel=WORK
        ),
    ] = None,
    decoders: Annotated[
        str | None,
        typer.Option(
            help="Decoders for complete answers. Add a cache policy after a colon, for example d3llm:none.",
            show_default="all for the model's family",
            rich_help_panel=WORK,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="JSONL or parquet file with a prompt or question per record.",
            show_default="generated word problems",
            rich_help_panel=WORK,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Maximum number of tokens of an answer.", show_default=str(MAX_TOKENS), rich_help_panel=WORK),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show the time per stage.", rich_help_panel=WORK)] = False,
    roofline: Annotated[
        str | None,
        typer.Option(
            help="Predict a chip (M1 to M5 Max) from published figures instead of measuring. The default model is "
            "llada-8b with 4 bits.",
            rich_help_panel=WORK,
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the speed of this machine, or predict another.

    Measures the time of a forward for several numbers of rows, prefill, and complete answers. Shows which numbers of
    rows are good on this machine. You can paste the output into a report. If the times look wrong, run d3mlx doctor.

    Example: d3mlx bench --roofline "M4 Max" --shape llada-8b --q-bits 4
    """
    check_outputs(json_file)
    duration = SECONDS if seconds is None else seconds
    forwards.check_seconds(duration)
    own = {"layers": layers, "hidden": hidden, "heads": heads, "kv_heads": kv_heads, "ff": ff, "vocab": vocab}
    sizes = sizes_of(shape, own)
    if model is not None and sizes is not None:
        raise ConfigError("Give --model or a shape, not both.")
    if revision is not None and model is None:
        raise ConfigError("--revision needs --model.")
    if q_bits is not None and sizes is None and (model is not None or roofline is None):
        raise ConfigError("--q-bits is for random weights only. To quantize a model, run d3mlx convert first.")
    name = model or ("random weights, " + (shape or "own shape") if sizes else "embedded")
    source = ModelSource(model, revision, sizes, q_bits, name)
    wants_answers = {"--decoders": decoders, "--prompts": prompts, "--max-tokens": max_tokens, "--profile": profile}
    given = [option for option, value in wants_answers.items() if value not in (None, False)]
    if given and (sizes is not None or roofline is not None):
        raise ConfigError(f"{', '.join(given)} cannot be combined with random weights or --roofline.")
    if roofline is not None:
        if seconds is not None:
            raise ConfigError("--roofline measures nothing. Leave out --seconds.")
        predict_forwards(
            roofline, source, CONTEXT if context is None else context, row_counts_of(row_counts), json_file
        )
        return
    check_request(max_tokens, ())
    answers = None
    if sizes is None:
        presets = presets_of(decoders) if decoders else {}
        answers = Answers(prompts, presets, MAX_TOKENS if max_tokens is None else max_tokens, profile)
    measure_all(source, context, row_counts_of(row_counts), duration, answers, json_file)
