"""`d3mlx eval`: a model, a decoder and its settings on a task."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from d3mlx.cli.common import loading, notice, numbers

if TYPE_CHECKING:
    from d3mlx.decoding.presets import Preset
    from d3mlx.evaluate.records import Setting
    from d3mlx.evaluate.results import Point
    from d3mlx.evaluate.run import Subject
    from d3mlx.evaluate.tasks import Task, TaskOptions

MODEL, TASK, DECODER, OUTPUT = "Model", "Task", "Decoder", "Output"
PROBLEMS = 200
"""How many generated problems are solved where no number is asked for."""


@dataclass(frozen=True)
class Where:
    """The model as the user names it, and its folder on this machine."""

    name: str
    adapter_path: str | None
    revision: str | None
    folder: Path
    family: str


def settings(thresholds: str | None, steps: str | None) -> list[Setting]:
    """The points to measure: one for each value, or one of the decoder as it is."""
    from d3mlx.errors import ConfigError
    from d3mlx.evaluate.records import Setting

    if thresholds is not None and steps is not None:
        raise ConfigError("Give --thresholds or --steps, not both: the points of a run differ in one thing.")
    found = [Setting("threshold", value) for value in numbers("--thresholds", thresholds, float)]
    return found + [Setting("steps", value) for value in numbers("--steps", steps, int)] or [Setting()]


def knobs_of(decoder: str, rows: str | None, pairs: list[str]) -> dict[str, Any]:
    """Options of the decoder from --rows and --knob NAME=VALUE, each of the type its field has."""
    from typing import get_args, get_type_hints

    from d3mlx.decoding.presets import PRESETS, check_choice
    from d3mlx.decoding.rows import Needed
    from d3mlx.errors import ConfigError

    check_choice("The decoder", decoder, tuple(PRESETS))
    hints = get_type_hints(PRESETS[decoder])
    listed = {"threshold": "--thresholds", "steps": "--steps", "rows": "--rows"}
    knobs: dict[str, Any] = {} if rows is None else {"rows": rows}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        field = name.strip().replace("-", "_")
        if field in listed:
            raise ConfigError(f"Give {field} as {listed[field]}, not as a knob.")
        if not equals or field not in hints:
            right = ", ".join(sorted(set(hints) - set(listed))).replace("_", "-")
            raise ConfigError(f"--knob takes NAME=VALUE, and {decoder} has the names {right}; {pair!r} is none.")
        kinds = [kind for kind in (int, float) if kind in get_args(hints[field])]
        try:
            knobs[field] = kinds[0](value) if kinds else value
        except ValueError:
            raise ConfigError(f"--knob {name} takes a number, not {value!r}.") from None
    if decoder == "d3mlx":
        # A run must not depend on its machine, and its folder says what it took instead.
        knobs.setdefault("row_multiple", Needed.multiple)
        knobs.setdefault("favor", "rows")
    return knobs


def presets_of(decoder: str, knobs: dict[str, Any], points: list[Setting]) -> dict[Setting, Preset]:
    from d3mlx.decoding.presets import preset

    return {point: preset(decoder, **knobs, **({point.knob: point.value} if point.knob else {})) for point in points}


def configuration(where: Where, subject: Subject, task: Task, options: TaskOptions) -> dict[str, Any]:
    """What the records depend on, apart from the decoder: two runs with the same may go on in one folder."""
    from d3mlx.distill.adapters import WEIGHTS
    from d3mlx.files import fingerprint
    from d3mlx.version import versions

    first = task.ask(0)
    return {
        "model": where.name,
        "model_fingerprint": fingerprint(where.folder),
        "adapter_path": where.adapter_path,
        "adapter_fingerprint": fingerprint(Path(where.adapter_path) / WEIGHTS if where.adapter_path else None),
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
    subject: Subject, task: Task, presets: dict[Setting, Preset], out: Path, config: dict[str, Any], count: int
) -> list[Point]:
    """Every point, with a progress bar on a terminal. What is solved stays in the folder whatever happens."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from d3mlx.evaluate.records import Folder, Record
    from d3mlx.evaluate.run import run_point

    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    points: list[Point] = []
    # A bar that overwrites itself is for a terminal; a log would fill with it.
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    with Folder(out).opened(config) as folder, progress:
        bar = progress.add_task("", total=count * len(presets))
        for setting, preset in presets.items():
            seen: list[bool] = []

            def on_record(record: Record, setting: Setting = setting, seen: list[bool] = seen) -> None:
                seen.append(record.correct)
                share = f"{100 * sum(seen) / len(seen):.1f} % of {len(seen)} correct"
                progress.update(bar, advance=1, description=f"{setting.label}: {share}")

            try:
                points.append(run_point(subject, task, preset, (folder, setting), count, on_record))
            except KeyboardInterrupt:
                progress.stop()
                sys.stderr.write(f"What is solved is kept in {out}; the same command goes on from there.\n")
                raise
    return points


def evaluate(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder or hub id of LLaDA or Dream; or embedded (default), teacher or pairs, which ship.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    adapter_path: Annotated[str | None, typer.Option(help="Folder of LoRA adapters.", rich_help_panel=MODEL)] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel=MODEL)
    ] = None,
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
    decoder: Annotated[
        str, typer.Option("--decoder", "-d", help="vanilla, fast-dllm, d3llm or d3mlx.", rich_help_panel=DECODER)
    ] = "d3mlx",
    thresholds: Annotated[
        str | None,
        typer.Option(help="A point for each: 0.1,0.3,0.5 (fast-dllm, d3llm, d3mlx).", rich_help_panel=DECODER),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="A point for each: 256,128,64 (vanilla).", rich_help_panel=DECODER)
    ] = None,
    rows: Annotated[
        Literal["full", "prefix", "dual", "delayed"] | None,
        typer.Option(help="What a step computes (fast-dllm, d3llm).", rich_help_panel=DECODER),
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for any other option that d3mlx generate has for the decoder, such as block-size=16; "
            "may be repeated.",
            rich_help_panel=DECODER,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Length of the canvas, 256 unless the model says.", rich_help_panel=DECODER)
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            help="Problems decoded at once, at most; fewer where memory is short.",
            min=1,
            rich_help_panel=DECODER,
        ),
    ] = 8,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.", rich_help_panel=DECODER)] = 0.0,
    top_p: Annotated[float | None, typer.Option(help="Share of probability to draw from.", rich_help_panel=DECODER)] = (
        None
    ),
    top_k: Annotated[int | None, typer.Option(help="Tokens to draw from.", rich_help_panel=DECODER)] = None,
    seed: Annotated[
        int,
        typer.Option(help="Seed of the first problem's noise; the next problem has the next.", rich_help_panel=DECODER),
    ] = 0,
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

    Every problem is solved once for each threshold. The table shows accuracy
    with its 95 % interval, tokens per forward (TPF), rows per token (RPT) and
    forwards; AUP sums the curve up. Every answer is kept in the folder --out:
    a run that was cut off goes on, thresholds and problems can be added, and
    d3mlx compare reads it.
    """
    from d3mlx import load
    from d3mlx.api import check_decoder, check_request
    from d3mlx.checkpoint import open_checkpoint
    from d3mlx.cli.consumers import plain_value
    from d3mlx.cli.scores import check_outputs, check_plot, check_y_max, show_run, write_json
    from d3mlx.decoding.sampling import Sampling
    from d3mlx.errors import ConfigError
    from d3mlx.evaluate.records import Folder
    from d3mlx.evaluate.results import Run, area, picture, summary
    from d3mlx.evaluate.run import Subject, begin
    from d3mlx.evaluate.tasks import TaskOptions
    from d3mlx.evaluate.tasks import task as make_task
    from d3mlx.files import write_text
    from d3mlx.hub import fetch
    from d3mlx.loader import EMBEDDED

    check_y_max(y_max)
    check_outputs(json_file, plot)
    check_plot(plot)
    check_request(max_tokens, ())
    sampling = Sampling(temperature, top_p, top_k, seed)
    knobs = knobs_of(decoder, rows, knob or [])
    presets = presets_of(decoder, knobs, settings(thresholds, steps))
    if count is not None and count < 1:
        raise ConfigError(f"--count must be at least 1, not {count}.")
    folder = out or Path("runs") / "-".join([task, *([f"{num_fewshot}-shot"] if num_fewshot else []), decoder])
    Folder(folder).refuse_foreign()
    checkpoint = open_checkpoint(fetch(model or EMBEDDED, revision))
    where = Where(model or "embedded", adapter_path, revision, checkpoint.folder, checkpoint.family)
    decoders = {point.name: chosen.build(where.family) for point, chosen in presets.items()}
    for built in decoders.values():
        check_decoder(built, checkpoint.args)
    options = TaskOptions(data, shots_data, num_fewshot, apply_chat_template, allow_code_execution)
    chosen_task = make_task(task, where.family, options)
    if chosen_task.size is not None and count is not None and count > chosen_task.size:
        raise ConfigError(f"{data} holds {chosen_task.size} problems, fewer than the {count} of --count.")
    count = count or chosen_task.size or PROBLEMS
    if model is None and task != "embedded":
        notice()
    with loading(str(where.folder)):
        subject = Subject(*load(where.folder, adapter_path), sampling, max_tokens, batch_size)
    # What cannot be asked leaves no folder behind that another attempt would have to fit.
    begin(subject, chosen_task, next(iter(presets.values())), 0)
    config = configuration(where, subject, chosen_task, options) | {"decoder": decoder, "knobs": knobs}
    points = solve_all(subject, chosen_task, presets, folder, config, count)
    run = Run(folder.resolve().name, config, points)
    found = area(run, run.best if y_max is None else y_max)
    if plot is not None:
        write_text(plot, picture([run], [found], x))
    if json_file is not None:
        write_json(json_file, summary(run, found) | {"policies": plain_value(decoders)})
    if json_file != Path("-"):
        show_run(run, found, y_max is not None)
