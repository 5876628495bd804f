"""`d3mlx eval`: a model and a decoder on a task."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from d3mlx.api import check_decoder, check_request
from d3mlx.batch import MAX_BATCH
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
from d3mlx.decoding.presets import DEFAULT, PRESETS
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Folder, Record, Setting
from d3mlx.evaluate.results import OperatingPoint, Run, area, picture, summary
from d3mlx.evaluate.run import EvalModel, begin, run_point
from d3mlx.evaluate.tasks import Task, TaskOptions
from d3mlx.evaluate.tasks import task as make_task
from d3mlx.files import fingerprint, write_text
from d3mlx.version import versions

TASK = "Task"
PROBLEMS = 200
"""How many generated problems are solved where no number is asked for."""


@dataclass(frozen=True)
class Where:
    """The model as the user names it, and its folder on this machine."""

    name: str
    adapter_path: str | None
    revision: str | None
    folder: Path


def settings_of(thresholds: str | None, steps: str | None) -> list[Setting]:
    """Return the points to measure: one for each value, or one of the decoder as it is."""
    if thresholds is not None and steps is not None:
        raise ConfigError("Give --thresholds or --steps, not both: the points of a run differ in one thing.")
    points = [Setting("threshold", value) for value in numbers("--thresholds", thresholds, float)]
    return points + [Setting("steps", value) for value in numbers("--steps", steps, int)] or [Setting()]


def presets_of(settings: common.DecodeSettings, points: list[Setting]) -> dict[Setting, Options]:
    """Return the decoder of every point. A run must not depend on its machine, so no option does."""
    presets = {}
    for point in points:
        varied = {point.option: point.value} if point.option else {}
        presets[point] = replace(settings, options=settings.options | varied).build().on_no_machine()
    return presets


def decoders_with(name: str) -> str:
    """Return the names of the decoders with an option, for the help."""
    return ", ".join(decoder for decoder, kind in PRESETS.items() if name in options_of(kind))


def check_examples(count: int | None, context: int) -> None:
    """Raise ConfigError for more worked examples than can fit: the question and the answer of each take tokens."""
    if count is not None and 2 * count > context:
        raise ConfigError(
            f"--num-fewshot {count} worked examples exceed this model's context of {context} tokens; give fewer."
        )


def configuration(where: Where, subject: EvalModel, task: Task, options: TaskOptions) -> dict[str, Any]:
    """Return what the records depend on, apart from the decoder: two runs with the same share a folder."""
    first = task.ask(0)
    return {
        "model": where.name,
        "model_fingerprint": fingerprint(where.folder),
        "adapter_path": where.adapter_path,
        "adapter_fingerprint": fingerprint(adapter_weights(where.adapter_path) if where.adapter_path else None),
        "revision": where.revision,
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
    """Return every point, measured. What is solved stays in the folder whatever happens."""
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
                sys.stderr.write(f"What is solved is kept in {out}; the same command goes on from there.\n")
                raise
    return points


@takes_decoder_options(leave_out=("threshold", "steps"))
def evaluate(
    model: common.Model = None,
    adapter_path: common.AdapterPath = None,
    revision: common.Revision = None,
    task: Annotated[
        str,
        typer.Option("--task", "-t", help="embedded, gsm8k-cot, gsm8k, math, humaneval, mbpp.", rich_help_panel=TASK),
    ] = "embedded",
    data: Annotated[
        Path | None,
        typer.Option(help="JSONL file of the problems, in the fields of the public data set.", rich_help_panel=TASK),
    ] = None,
    shots_data: Annotated[
        Path | None,
        typer.Option(help="JSONL file whose first rows are the worked examples.", rich_help_panel=TASK),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(help="Worked examples before each problem; by default as published.", rich_help_panel=TASK),
    ] = None,
    apply_chat_template: Annotated[
        bool | None,
        typer.Option(
            "--apply-chat-template/--no-apply-chat-template",
            help="Ask through the chat template, or plain text; by default as published for the family.",
            rich_help_panel=TASK,
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "--limit", "-n", help=f"Problems to solve: all, or {PROBLEMS} generated.", rich_help_panel=TASK
        ),
    ] = None,
    allow_code_execution: Annotated[
        bool,
        typer.Option(
            "--allow-code-execution",
            help="Let humaneval and mbpp run programs that the model wrote, in a confined process.",
            rich_help_panel=TASK,
        ),
    ] = False,
    decoder: common.DecoderName = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            help=f"{decoders_with('threshold')}: measure a point for each threshold, for example 0.1,0.3,0.5.",
            rich_help_panel=DECODER,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help=f"{decoders_with('steps')}: measure a point for each number of steps, for example 256,128,64.",
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
            help="Most problems decoded at once; fewer where memory is short.", min=1, rich_help_panel=DECODER
        ),
    ] = MAX_BATCH,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    end_penalty: common.EndPenalty = None,
    seed: common.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the answers, by default runs/TASK-DECODER.", rich_help_panel=OUTPUT),
    ] = None,
    y_max: Annotated[
        float | None,
        typer.Option(
            help="Accuracy in percent that AUP is relative to, by default the best of this run.", rich_help_panel=OUTPUT
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write all figures to this file; - for standard output.", rich_help_panel=OUTPUT),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write accuracy over parallelism to this SVG file.", rich_help_panel=OUTPUT)
    ] = None,
    x: Annotated[
        Literal["tpf", "rpt"],
        typer.Option("--x", help="Axis of the plot: tokens per forward, or rows per token.", rich_help_panel=OUTPUT),
    ] = "tpf",
) -> None:
    """Measure accuracy and parallelism of a model on a task.

    Each decoder has more options than the ones below. `d3mlx decoders NAME` lists them; give them as flags.

    Every problem is solved once for each threshold. The table shows accuracy
    with its 95 % interval, tokens per forward (TPF), rows per token (RPT) and
    forwards; AUP sums the curve up. Every answer is kept in the folder --out:
    a run that was cut off goes on, thresholds and problems can be added, and
    d3mlx compare reads it.
    """
    check_y_max(y_max)
    check_outputs(json_file, plot)
    check_plot(plot)
    check_request(max_tokens, ())
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options)
    points_wanted = settings_of(thresholds, steps)
    presets, sampling = presets_of(settings, points_wanted), settings.sampling(top_k, seed)
    if count is not None and count < 1:
        raise ConfigError(f"--count must be at least 1, not {count}.")
    if out is not None:
        Folder(out).refuse_foreign()
    checkpoint = open_checkpoint(fetch(EMBEDDED if model is None else model, revision))
    if recommended:
        settings = settings.filled(EMBEDDED if model is None else model, checkpoint)
        presets, sampling = presets_of(settings, points_wanted), settings.sampling(top_k, seed)
    name = settings.decoder or DEFAULT
    folder = out or Path("runs") / "-".join([task, *([f"{num_fewshot}-shot"] if num_fewshot else []), name])
    Folder(folder).refuse_foreign()
    where = Where(model or "embedded", adapter_path, revision, checkpoint.folder)
    varied = {point.option for point in presets}
    first = next(iter(presets.values()))
    fixed = {name: value for name, value in first.given().items() if name not in varied}
    decoders = {point.name: chosen.build(checkpoint.family) for point, chosen in presets.items()}
    for built in decoders.values():
        check_decoder(built, checkpoint.args)
    task_options = TaskOptions(data, shots_data, num_fewshot, apply_chat_template, allow_code_execution)
    check_examples(num_fewshot, checkpoint.args.context)
    chosen_task = make_task(task, checkpoint.family, task_options)
    if chosen_task.size is not None and count is not None and count > chosen_task.size:
        raise ConfigError(f"{data} holds {chosen_task.size} problems, fewer than the {count} of --count.")
    count = count or chosen_task.size or PROBLEMS
    if model is None and task != "embedded":
        notice()
    opened = load_opened(where.name, checkpoint, adapter_path)
    subject = EvalModel(*opened, sampling, settings.max_tokens, batch_size)
    # What cannot be asked leaves no folder behind that another attempt would have to fit.
    begin(subject, chosen_task, first, 0)
    config = configuration(where, subject, chosen_task, task_options) | {"decoder": name, "options": fixed}
    points = solve_all(subject, chosen_task, presets, folder, config, count)
    run = Run(folder.resolve().name, config, points)
    run_area = area(run, run.best if y_max is None else y_max)
    if plot is not None:
        write_text(plot, picture([run], [run_area], x))
    if json_file is not None:
        write_json(json_file, summary(run, run_area) | {"policies": plain_value(decoders)})
    if json_file != Path("-"):
        show_run(run, run_area, y_max is not None)
