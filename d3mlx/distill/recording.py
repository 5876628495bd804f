"""Recording of trajectories into a folder. A run can be interrupted and resumed, and use several processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx

from d3mlx.append_log import Settings
from d3mlx.batch import MAX_BATCH
from d3mlx.distill.import_d3llm import published_trajectories
from d3mlx.distill.prompts import vocabulary_fingerprint
from d3mlx.distill.trajectories import Question, RecordConfig, Trajectory, record
from d3mlx.distill.trajectory_store import NOT_COMPARED, begin_store, open_store, writing_to
from d3mlx.files import locked
from d3mlx.models import DiffusionModel

Done = Callable[[Trajectory | None, int, int], None]
"""Receives a trajectory (None at the start), and this process's numbers of finished and of all prompts."""


def settings_of(model: DiffusionModel, tokenizer: Any, **options: Any) -> dict[str, Any]:
    """Return the settings of a folder. Runs with other values are refused. Training checks the tokenizer."""
    return {
        "family": model.family,
        "mask_id": model.args.mask_token_id,
        "vocabulary": model.args.logit_width,
        "tokenizer": vocabulary_fingerprint(tokenizer),
        "chat_template": tokenizer.chat_template,
        **options,
    }


def wait_for_all() -> None:
    """Wait until every process has called this."""
    if mx.distributed.init().size() > 1:
        mx.eval(mx.distributed.all_sum(mx.array(1.0)))


def alone(folder: Path) -> AbstractContextManager[None]:
    """Lock the folder against other runs. The first process does so for all processes of this run."""
    return locked(folder) if mx.distributed.init().rank() == 0 else nullcontext()


def claim(folder: Path, values: dict[str, Any]) -> set[int]:
    """Open the folder in every process and return its rows, which are the same in all. Raises ConfigError."""
    settings = Settings(values, "trajectories", "use the same settings, or choose another folder.", NOT_COMPARED)
    done = open_store(folder, settings)
    wait_for_all()
    if mx.distributed.init().rank() == 0:
        begin_store(folder, settings)
    return done


def record_all(
    model: DiffusionModel,
    tokenizer: Any,
    questions: list[Question],
    config: RecordConfig,
    folder: Path,
    settings: dict[str, Any],
    shard: int,
    report: Done,
    batch_size: int = MAX_BATCH,
) -> None:
    """Record this process's share of the questions that are not in the folder, `batch_size` at a time."""
    world = mx.distributed.init()
    with alone(folder):
        done = claim(folder, {**settings, **config.settings(model.family)})
        remaining = [question for question in questions if question.row not in done]
        mine = remaining[world.rank() :: world.size()]
        with writing_to(folder, world.rank(), shard) as writer:
            report(None, 0, len(mine))
            for number, trajectory in enumerate(record(model, tokenizer, mine, config, batch_size), 1):
                writer.add(trajectory)
                report(trajectory, number, len(mine))
        wait_for_all()


def import_all(
    source: Path,
    model: DiffusionModel,
    tokenizer: Any,
    raw: bool,
    folder: Path,
    settings: dict[str, Any],
    shard: int,
    report: Done,
) -> None:
    """Convert data in the published layout: all rows, or none if a row cannot be used."""
    trajectories = []
    for number, trajectory in enumerate(published_trajectories(source, model, tokenizer, raw), 1):
        trajectories.append(trajectory)
        report(trajectory, number, 0)
    with alone(folder):
        done = claim(folder, settings)
        with writing_to(folder, size=shard) as writer:
            for trajectory in trajectories:
                if trajectory.row not in done:
                    writer.add(trajectory)
