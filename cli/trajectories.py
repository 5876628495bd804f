"""`d3mlx trajectories`: record the order in which a teacher commits its answers."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from d3mlx.distill.trajectories import Trajectory


LINE_SECONDS = 30
"""Between two lines of progress."""


class Counter:
    """A progress bar with the time left, on standard error; where that is no terminal, a line now and then.

    shown: whether this process says anything.
    """

    def __init__(self, description: str, shown: bool):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        text, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeft(), figures)
        bar = shown and sys.stderr.isatty()
        self.progress = Progress(*columns, console=Console(stderr=True), disable=not bar)
        self.task = self.progress.add_task(description, total=None, figures="")
        self.checked = self.right = 0
        self.description, self.lines, self.told = description, shown and not bar, time.monotonic()

    def __enter__(self) -> Counter:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, found: Trajectory | None, done: int, total: int) -> None:
        if found is not None and found.correct is not None:
            self.checked += 1
            self.right += found.correct
        figures = f"{self.right / self.checked:.0%} right" if self.checked else ""
        self.progress.update(self.task, completed=done, total=total or None, figures=figures)
        if self.lines and time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            of = f" of {total}" if total else ""
            sys.stderr.write(f"{self.description}: {done}{of}{f', {figures}' if figures else ''}\n")


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
        typer.Option(
            "--model",
            "-m",
            help="Teacher: folder, hub id, or `teacher`, the one that ships.",
            show_default="the student that ships",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Length of an answer's canvas, 256 unless the model says.", min=1, show_default=False),
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Tokens in a block of the teacher's decode, 32.", min=1, show_default=False)
    ] = None,
    rows: Annotated[
        Literal["full", "needed"] | None,
        typer.Option(
            help="What a forward computes: full, all positions as published; or needed, the few that can change, "
            "which is faster and not quite the same.",
            show_default="full",
        ),
    ] = None,
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
        int | None, typer.Option(help="Seed of the attempts above temperature 0, 0.", min=0, show_default=False)
    ] = None,
) -> None:
    """Record a teacher's decodes for distillation.

    The teacher decodes one token per forward (LLaDA: the likeliest of its block, Dream: the one of lowest entropy).
    Kept are the prompt, the tokens, and the step at which each was committed. Interrupt it whenever you like: the same
    command goes on. Under mlx.launch the prompts are shared between the processes.
    """
    import mlx.core as mx

    from d3mlx import load
    from d3mlx.distill.recording import import_all, record_all, settings_of
    from d3mlx.distill.rows import EMBEDDED as PROBLEMS
    from d3mlx.distill.rows import questions
    from d3mlx.distill.store import read_store
    from d3mlx.distill.trajectories import RecordConfig
    from d3mlx.errors import ConfigError, DataError
    from d3mlx.files import fingerprint
    from d3mlx.hub import fetch
    from d3mlx.loader import EMBEDDED

    decoding = (data, max_tokens, block_size, rows, seed)
    if published is not None and (check or early_stop or any(option is not None for option in decoding)):
        raise ConfigError("--import converts what was decoded elsewhere; --data and options of decoding have no use.")
    if published is not None and limit is not None:
        raise ConfigError("--import converts every row of its file; --limit has no use.")
    source = str(published) if published is not None else data or PROBLEMS
    if source != PROBLEMS and not Path(source).is_file():
        raise DataError(f"There is no file {source}.")
    loaded, tokenizer = teacher = load(model or EMBEDDED, revision=revision)
    first = mx.distributed.init().rank() == 0
    marks = {
        "teacher_fingerprint": fingerprint(fetch(model or EMBEDDED, revision)),
        "data_fingerprint": None if source == PROBLEMS else fingerprint(source),
    }
    settings = settings_of(loaded, tokenizer, teacher=model or "embedded", data=source, raw=raw, **marks)
    if published is not None:
        with Counter("importing", shown=True) as counter:
            import_all(published, teacher, raw, out, settings, shard, counter)
    else:
        length, size = max_tokens or loaded.args.max_new_tokens, block_size or 32
        config = RecordConfig(length, size, rows or "full", early_stop, check, seed or 0)
        asked = questions(source, loaded, tokenizer, config.max_tokens, raw, limit)
        with Counter("recording", shown=first) as counter:
            record_all(teacher, asked, config, out, settings, shard, counter, batch_size)
    if first:
        found = list(read_store(out))
        judged = [t.correct for t in found if t.correct is not None]
        right = f", {sum(judged)} of {len(judged)} right" if judged else ""
        sys.stderr.write(f"{len(found)} trajectories in {out}{right}.\n")
