"""`d3mlx eval`: measure a model and a decoder on a task."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx.batch import MAX_BATCH, MOST_AT_ONCE
from d3mlx.checkpoints.adapters import adapter_weights
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli import common
from d3mlx.cli.common import DECODER, OUTPUT, notice, numbers
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.loading import load_opened
from d3mlx.cli.render.consumers import plain_value
from d3mlx.cli.render.progress import Progress
from d3mlx.cli.render.scores import check_outputs, check_plot, check_y_max, show_run, write_json
from d3mlx.decoding.options import Options, options_of
from d3mlx.decoding.presets import PRESETS
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Folder, Record, Setting
from d3mlx.evaluate.results import OperatingPoint, Run, area, picture, summary
from d3mlx.evaluate.run import EvalModel, begin, run_point
from d3mlx.evaluate.tasks import Task, TaskOptions
from d3mlx.evaluate.tasks import task as make_task
from d3mlx.files import fingerprint, write_text
from d3mlx.generation import check_decoder, check_length, check_request
from d3mlx.terminal import write
from d3mlx.version import versions

TASK = "Task"
PROBLEMS = 200
"""Default number of generated problems."""

MOST_PROBLEMS = 1_000_000
"""Largest number of problems."""


@dataclass(frozen=True)
class Source:
    """A model: the name that the user gave, and its folder on this machine."""

    name: str
    adapter_path: str | None
    revision: str | None
    folder: Path


def settings_of(thresholds: str | None, steps: str | None) -> list[Setting]:
    """Return the points to measure: one per value, or one with the default of the decoder."""
    if thresholds is not None and steps is not None:
        raise ConfigError("Give --thresholds or --steps, not both. The points of a run differ in one option.")
    points = [Setting("threshold", value) for value in numbers("--thresholds", thresholds, float)]
    return points + [Setting("steps", value) for value in numbers("--steps", steps, int)] or [Setting()]


def presets_of(settings: common.DecodeSettings, points: list[Setting]) -> dict[Setting, Options]:
    """Return the decoder of each point."""
    presets = {}
    for point in points:
        varied = {point.option: point.value} if point.option else {}
        presets[point] = replace(settings, options=settings.options | varied).build()
    return presets


def decoders_with(name: str) -> str:
    """Return the names of the decoders that have an option, for the help page."""
    return ", ".join(decoder for decoder, kind in PRESETS.items() if name in options_of(kind))


def check_examples(count: int | None, context: int) -> None:
    """Raise ConfigError if there are more worked examples than fit. Each example has at least two tokens."""
    if count is not None and 2 * count > context:
        raise ConfigError(f"Invalid --num-fewshot {count}. The context of this model has {context} tokens.")


def configuration(source: Source, subject: EvalModel, task: Task, options: TaskOptions) -> dict[str, Any]:
    """Return the settings that the records depend on, without the decoder. Runs in one folder must have the same."""
    first = task.ask(0)
    return {
        "model": source.name,
        "model_fingerprint": fingerprint(source.folder),
        "adapter_path": source.adapter_path,
        "adapter_fingerprint": fingerprint(adapter_weights(source.adapter_path) if source.adapter_path else None),
        "revision": source.revision,
        "task": task.name,
        "data": str(options.data) if options.data else None,
        "data_fingerprint": fingerprint(options.data),
        "shots_data_fingerprint": fingerprint(options.shots_data),
        "num_fewshot": options.shots,
        "chat_template": first.chat,
        "stop": list(task.stop),
        "sampling": asdict(subject.sampling),
        "max_tokens": subject.new_tokens,
        "versions": versions(),
    }


def solve_all(
    subject: EvalModel, task: Task, presets: dict[Setting, Options], out: Path, config: dict[str, Any], count: int
) -> list[OperatingPoint]:
    """Solve the problems for each point, and return the points. Finished problems are kept in the folder."""
    points: list[OperatingPoint] = []
    with Folder(out).opened(config) as folder, Progress("solving", count * len(presets)) as progress:
        for setting, chosen in presets.items():
            seen: list[bool] = []

            def on_record(record: Record, setting: Setting = setting, seen: list[bool] = seen) -> None:
                seen.append(record.correct)
                share = f"{sum(seen) / len(seen):.1%} of {len(seen)} correct"
                progress.advance(f"{setting.label}: {share}")

            try:
                points.append(run_point(subject, task, chosen, folder, setting, count, on_record))
            except KeyboardInterrupt:
                progress.bar.stop()
                write(sys.stderr, f"The solved problems are in {out}. Run the same command to continue.\n")
                raise
    return points


@takes_decoder_options(leave_out=("threshold", "steps"))
def evaluate(
    model: common.Model = None,
    adapter_path: common.AdapterPath = None,
    revision: common.Revision = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            help="Task: embedded, gsm8k-cot, gsm8k, math, humaneval or mbpp.",
            rich_help_panel=TASK,
        ),
    ] = "embedded",
    data: Annotated[
        Path | None,
        typer.Option(help="JSONL file with the problems of the public data set.", rich_help_panel=TASK),
    ] = None,
    shots_data: Annotated[
        Path | None,
        typer.Option(help="JSONL file. Its first lines are the worked examples.", rich_help_panel=TASK),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            help="Number of worked examples before each problem.", show_default="as published", rich_help_panel=TASK
        ),
    ] = None,
    apply_chat_template: Annotated[
        bool | None,
        typer.Option(
            "--apply-chat-template/--no-apply-chat-template",
            help="Use the chat template, or plain text.",
            rich_help_panel=TASK,
            show_default="as published",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "--limit",
            "-n",
            help="Number of problems to solve.",
            show_default=f"all, or {PROBLEMS} for embedded",
            rich_help_panel=TASK,
        ),
    ] = None,
    allow_code_execution: Annotated[
        bool,
        typer.Option(
            "--allow-code-execution",
            help="Run programs that the model writes (humaneval, mbpp). Limits protect only against accidents.",
            rich_help_panel=TASK,
        ),
    ] = False,
    decoder: common.DecoderName = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            help=f"{decoders_with('threshold')}: Thresholds to measure, for example 0.1,0.3,0.5.",
            rich_help_panel=DECODER,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help=f"{decoders_with('steps')}: Numbers of steps to measure, for example 256,128,64.",
            rich_help_panel=DECODER,
        ),
    ] = None,
    *,
    options: dict[str, Any],
    recommended: common.UseRecommended = False,
    max_tokens: common.MaxTokens = None,
    batch_size: Annotated[
        int,
        typer.Option(
            help="Maximum number of problems to decode at once, if memory allows.",
            min=1,
            max=MOST_AT_ONCE,
            rich_help_panel=DECODER,
        ),
    ] = MAX_BATCH,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    end_penalty: common.EndPenalty = None,
    seed: common.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder of the answers.", show_default="runs/TASK-DECODER", rich_help_panel=OUTPUT),
    ] = None,
    y_max: common.YMax = None,
    json_file: common.JsonFile = None,
    plot: common.Plot = None,
    x: common.Axis = "tpf",
) -> None:
    """Measure accuracy and parallelism on a task.

    d3mlx solves every problem once per threshold. The table shows accuracy with its 95 % interval, tokens per forward
    (TPF), rows per token (RPT) and forwards. AUP summarizes the curve.

    The folder --out contains all answers. Run the same command again to continue, or to add thresholds and problems.

    Each decoder has more options than this page shows. `d3mlx decoders NAME` lists them. They are flags here.

    Example: d3mlx eval --task embedded --thresholds 0.1,0.3,0.5 --count 20
    """
    check_y_max(y_max)
    check_outputs(json_file, plot)
    check_plot(plot)
    check_request(max_tokens, ())
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options, top_k, seed)
    points_wanted = settings_of(thresholds, steps)
    if decoder is not None:
        presets_of(settings, points_wanted)
    sampling = settings.sampling()
    if count is not None and not 1 <= count <= MOST_PROBLEMS:
        raise ConfigError(f"Invalid --count {count}. Use a number from 1 to {MOST_PROBLEMS:,}.")
    if out is not None:
        Folder(out).refuse_foreign()
    checkpoint = open_checkpoint(fetch(EMBEDDED if model is None else model, revision))
    settings = (
        settings.filled(EMBEDDED if model is None else model, checkpoint)
        if recommended
        else settings.of_family(checkpoint.family)
    )
    presets, sampling = presets_of(settings, points_wanted), settings.sampling()
    name = str(settings.decoder)
    folder = out or Path("runs") / "-".join([task, *([f"{num_fewshot}-shot"] if num_fewshot else []), name])
    Folder(folder).refuse_foreign()
    source = Source(model or "embedded", adapter_path, revision, checkpoint.folder)
    varied = {point.option for point in presets}
    first = next(iter(presets.values()))
    fixed = {name: value for name, value in first.given().items() if name not in varied}
    decoders = {point.name: chosen.build(checkpoint.family) for point, chosen in presets.items()}
    for built in decoders.values():
        check_decoder(built, checkpoint.family, checkpoint.args)
    task_options = TaskOptions(data, shots_data, num_fewshot, apply_chat_template, allow_code_execution)
    check_length(settings.max_tokens, checkpoint.args)
    check_examples(num_fewshot, checkpoint.args.context)
    chosen_task = make_task(task, checkpoint.family, task_options)
    if chosen_task.size is not None and count is not None and count > chosen_task.size:
        raise ConfigError(f"Invalid --count {count}. {data} contains {chosen_task.size} problems.")
    count = count or chosen_task.size or PROBLEMS
    if model is None and task != "embedded":
        notice()
    opened = load_opened(source.name, checkpoint, adapter_path)
    subject = EvalModel(*opened, sampling, settings.max_tokens, batch_size)
    # Check the first problem before the output folder exists: the settings of the next attempt may differ.
    begin(subject, chosen_task, first, 0)
    config = configuration(source, subject, chosen_task, task_options) | {"decoder": name, "options": fixed}
    points = solve_all(subject, chosen_task, presets, folder, config, count)
    run = Run(folder.resolve().name, config, points)
    run_area = area(run, run.best if y_max is None else y_max)
    if plot is not None:
        write_text(plot, picture([run], [run_area], x))
    if json_file is not None:
        write_json(json_file, summary(run, run_area) | {"policies": plain_value(decoders)})
    if json_file != Path("-"):
        show_run(run, run_area, y_max is not None)
