"""Recording a whole set of prompts into a folder, resumable and shared between processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx

from d3mlx.batch import MAX_BATCH
from d3mlx.distill.import_d3llm import published_trajectories
from d3mlx.distill.prompts import fingerprint
from d3mlx.distill.trajectories import Question, RecordConfig, Trajectory, record
from d3mlx.distill.trajectory_store import Writer, begin_store, open_store
from d3mlx.files import locked
from d3mlx.models import DiffusionModel

Done = Callable[[Trajectory | None, int, int], None]
"""Told of a trajectory (None at the start), how many prompts of this process are done, and of how many."""


def settings_of(model: DiffusionModel, tokenizer: Any, **options: Any) -> dict[str, Any]:
    """What a folder is recorded with. Going on with other values is refused, training checks the tokenizer."""
    return {
        "family": model.family,
        "mask_id": model.args.mask_token_id,
        "vocabulary": model.args.logit_width,
        "tokenizer": fingerprint(tokenizer),
        "chat_template": tokenizer.chat_template,
        **options,
    }


def wait_for_all() -> None:
    """Return once every process is here."""
    if mx.distributed.init().size() > 1:
        mx.eval(mx.distributed.all_sum(mx.array(1.0)))


def alone(folder: Path) -> AbstractContextManager[None]:
    """No other run writes to the folder meanwhile: the first process holds the lock for all of this one."""
    return locked(folder) if mx.distributed.init().rank() == 0 else nullcontext()


def claim(folder: Path, settings: dict[str, Any]) -> set[int]:
    """Open the folder in every process; the rows that are done, the same for all."""
    done = open_store(folder, settings)
    wait_for_all()
    if mx.distributed.init().rank() == 0:
        begin_store(folder, settings)
    return done


def record_all(
    teacher: tuple[DiffusionModel, Any],
    questions: list[Question],
    config: RecordConfig,
    folder: Path,
    settings: dict[str, Any],
    shard: int,
    report: Done,
    batch_size: int = MAX_BATCH,
) -> None:
    """Decode what is not recorded yet, `batch_size` prompts at a time; this process's share under `mlx.launch`."""
    world = mx.distributed.init()
    with alone(folder):
        done = claim(folder, {**settings, **config.settings(teacher[0].family)})
        left = [question for question in questions if question.row not in done]
        mine = left[world.rank() :: world.size()]
        writer = Writer(folder, world.rank(), shard)
        report(None, 0, len(mine))
        for number, trajectory in enumerate(record(*teacher, mine, config, batch_size), 1):
            writer.add(trajectory)
            report(trajectory, number, len(mine))
        writer.flush()
        wait_for_all()


def import_all(
    source: Path,
    teacher: tuple[DiffusionModel, Any],
    raw: bool,
    folder: Path,
    settings: dict[str, Any],
    shard: int,
    report: Done,
) -> None:
    """Convert data in the published layout: all of it, or nothing where a row cannot be used."""
    rows = []
    for number, found in enumerate(published_trajectories(source, *teacher, raw), 1):
        rows.append(found)
        report(found, number, 0)
    with alone(folder):
        done = claim(folder, settings)
        writer = Writer(folder, size=shard)
        for found in rows:
            if found.row not in done:
                writer.add(found)
        writer.flush()
