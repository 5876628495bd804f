"""`d3mlx trajectories`: record how a teacher decodes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import typer

from d3mlx.batch import MOST_AT_ONCE
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli import common
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.loading import load_opened
from d3mlx.cli.render.progress import RecordingProgress
from d3mlx.data.records import check_file
from d3mlx.distill.config import check_trainable
from d3mlx.distill.prompts import EMBEDDED as PROBLEMS
from d3mlx.distill.prompts import questions
from d3mlx.distill.recording import import_all, record_all, settings_of
from d3mlx.distill.trajectories import MOST_STEPS, RecordConfig, Teacher
from d3mlx.distill.trajectory_store import read_store
from d3mlx.errors import ConfigError
from d3mlx.files import fingerprint
from d3mlx.models import traits_of
from d3mlx.terminal import write

DATA = "Data"
MOST_ROWS = 1_000_000
"""Largest number of prompts of a recording."""


@takes_decoder_options({"": Teacher})
def trajectories(
    out: Annotated[Path, typer.Argument(help="Output folder. An interrupted run continues in it.")],
    model: common.Model = None,
    revision: common.Revision = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="JSONL or parquet file with a prompt or messages per record, and optionally an answer; or embedded, "
            "for generated word problems.",
            show_default="embedded",
            rich_help_panel=DATA,
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            "--import",
            help="Convert a file in the layout of d3LLM instead of decoding. Its records have trajectory, prompt_ids "
            "and question.",
            dir_okay=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Number of prompts to use.",
            min=1,
            max=MOST_ROWS,
            show_default="all, or 2500 for embedded",
            rich_help_panel=DATA,
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Use prompts without the chat template.", rich_help_panel=DATA)
    ] = False,
    shard: Annotated[
        int, typer.Option(help="Number of prompts per output file.", min=1, max=MOST_ROWS, rich_help_panel=DATA)
    ] = 256,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of tokens of an answer.",
            min=1,
            max=MOST_STEPS,
            show_default="from the model, or 256",
            rich_help_panel=common.DECODER,
        ),
    ] = None,
    *,
    options: dict[str, Any],
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop",
            help="Stop at the end token. This is faster. Then train with --selection segment.",
            rich_help_panel=common.DECODER,
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare each answer with the given one. Repeat wrong answers at temperatures up to 0.4.",
            rich_help_panel=common.DECODER,
        ),
    ] = False,
    batch_size: Annotated[
        int,
        typer.Option(
            help="Maximum number of prompts to decode at once, if memory allows.",
            min=1,
            max=MOST_AT_ONCE,
            rich_help_panel=common.DECODER,
        ),
    ] = 8,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the repeated answers of --check.",
            min=0,
            max=2**32 - 1,
            show_default="0",
            rich_help_panel=common.DECODER,
        ),
    ] = None,
) -> None:
    """Record how a teacher decodes.

    The teacher commits one token per forward: LLaDA the most likely one of its block, Dream the one with the lowest
    entropy. A trajectory contains the prompt, the tokens, and the step at which each token was committed.

    You can interrupt a recording. Run the same command again to continue. With mlx.launch, processes share the prompts.

    Example: d3mlx trajectories runs/teacher --model teacher --limit 20
    """
    decoding = (data, max_tokens, seed, *options.values())
    if published is not None and (check or early_stop or any(option is not None for option in decoding)):
        raise ConfigError("--import converts decoded data. Run without --data and without options of decoding.")
    if published is not None and limit is not None:
        raise ConfigError("--import converts all records of its file. Run without --limit.")
    source = str(published) if published is not None else data or PROBLEMS
    if source != PROBLEMS:
        check_file(Path(source))
    name = EMBEDDED if model is None else model
    checkpoint = open_checkpoint(fetch(name, revision))
    check_trainable(traits_of(checkpoint.family))
    loaded, tokenizer = load_opened(name, checkpoint)
    first = mx.distributed.init().rank() == 0
    marks = {
        "teacher_fingerprint": fingerprint(checkpoint.folder),
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
        more = f" --limit {limit} does not remove those of earlier runs." if limit and len(recorded) > limit else ""
        write(sys.stderr, f"{len(recorded)} trajectories in {out}{correct}.{more}\n")
