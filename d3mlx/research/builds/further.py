"""Further training of the teacher with other batches, for the model of pairs and the student's control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.files import fingerprint
from d3mlx.research.batches import Batch
from d3mlx.research.builds.shipped import display, finished, float_checkpoint, working
from d3mlx.research.supervised import Supervised


@dataclass(frozen=True)
class Further:
    """A run of further training.

    teacher: folder. batch_at: returns the batch of a step. about: what the batches depend on, as JSON.
    """

    teacher: str
    batch_at: Callable[[int], Batch]
    plan: TrainConfig
    about: dict[str, Any]


def train_on(run: Further, work: Path, resume: bool, changes: dict[str, Any] | None = None) -> Path:
    """Train, and return the folder of the float32 weights. Raises ConfigError as `working` does.

    changes: new values in the teacher's config.json.
    """
    model, tokenizer, config = float_checkpoint(Path(run.teacher))
    objective = Supervised(run.batch_at, config["mask_token_id"], run.plan.seed)
    with working(work, resume, run.about | {"teacher": fingerprint(run.teacher), "steps": run.plan.steps}):
        Trainer(model, objective, run.plan, work).run(resume=resume, watcher=display(run.plan))
        return finished(work, model, tokenizer, config | (changes or {}))
