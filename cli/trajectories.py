"""`d3mlx trajectories`: record the order in which a teacher commits its answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli import common
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.loading import load_model
from d3mlx.cli.render.progress import RecordingProgress
from d3mlx.distill.prompts import EMBEDDED as PROBLEMS
from d3mlx.distill.prompts import questions
from d3mlx.distill.recording import import_all, record_all, settings_of
from d3mlx.distill.trajectories import RecordConfig, Teacher
from d3mlx.distill.trajectory_store import read_store
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import fingerprint


@takes_decoder_options({"": Teacher})
def trajectories(
    out: Annotated[Path, typer.Argument(help="Folder of the trajectories; a run that was cut off goes on in it.")],
    data: Annotated[
        str | None,
        typer.Option(
            help='Prompts: JSONL or parquet with rows {"prompt": ...} or {"messages": [...]}, and "answer" if known; '
            "or `embedded`, the generated word problems.",
            show_default="embedded",
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            "--import",
            help="Convert data in the published layout (JSONL or parquet with trajectory, prompt_ids, question) "
            "instead of decoding.",
            dir_okay=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help=f"The teacher. {common.MODEL_HELP}", show_default="embedded"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Length of an answer's canvas.", min=1, show_default="the model's own, else 256"),
    ] = None,
    *,
    options: dict[str, Any],
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop",
            help="Do not decode what follows the end token. Faster; then train with --selection segment.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare answers with the given ones; a wrong one is tried again at temperatures up to 0.4.",
        ),
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Prompts as they are, without the chat template.")] = False,
    limit: Annotated[int | None, typer.Option(help="Only this many rows; 2500 of the generated ones.", min=1)] = None,
    shard: Annotated[int, typer.Option(help="Prompts in a file.", min=1)] = 256,
    batch_size: Annotated[
        int, typer.Option(help="Prompts decoded at once, at most; fewer where memory is short.", min=1)
    ] = 8,
    seed: Annotated[
        int | None,
        typer.Option(help="With --check: seed of the attempts above temperature 0.", min=0, show_default="0"),
    ] = None,
) -> None:
    """Record a teacher's decodes for distillation.

    The teacher decodes one token per forward (LLaDA: the likeliest of its block, Dream: the one of lowest entropy).
    Kept are the prompt, the tokens, and the step at which each was committed. Interrupt it whenever you like: the same
    command goes on. Under mlx.launch the prompts are shared between the processes.
    """
    decoding = (data, max_tokens, seed, *options.values())
    if published is not None and (check or early_stop or any(option is not None for option in decoding)):
        raise ConfigError("--import converts what was decoded elsewhere; --data and options of decoding have no use.")
    if published is not None and limit is not None:
        raise ConfigError("--import converts every row of its file; --limit has no use.")
    source = str(published) if published is not None else data or PROBLEMS
    if source != PROBLEMS and not Path(source).is_file():
        raise DataError(f"There is no file {source}.")
    loaded, tokenizer, folder = load_model(EMBEDDED if model is None else model, revision=revision)
    first = mx.distributed.init().rank() == 0
    marks = {
        "teacher_fingerprint": fingerprint(folder),
        "data_fingerprint": None if source == PROBLEMS else fingerprint(source),
    }
    settings = settings_of(loaded, tokenizer, teacher=model or "embedded", data=source, raw=raw, **marks)
    if published is not None:
        with RecordingProgress("importing") as progress:
            import_all(published, loaded, tokenizer, raw, out, settings, shard, progress)
    else:
        length = max_tokens or loaded.args.max_new_tokens
        config = RecordConfig(length, Teacher(**options), early_stop, check, seed or 0)
        prompts = questions(source, loaded, tokenizer, config.max_tokens, raw, limit)
        with RecordingProgress("recording", shown=first) as progress:
            record_all(loaded, tokenizer, prompts, config, out, settings, shard, progress, batch_size)
    if first:
        recorded = list(read_store(out))
        verdicts = [trajectory.correct for trajectory in recorded if trajectory.correct is not None]
        correct = f", {sum(verdicts)} of {len(verdicts)} correct" if verdicts else ""
        more = f"; --limit {limit} does not remove those of earlier runs" if limit and len(recorded) > limit else ""
        sys.stderr.write(f"{len(recorded)} trajectories in {out}{correct}{more}.\n")
