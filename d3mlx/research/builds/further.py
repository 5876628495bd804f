"""The teacher, trained on with other batches: what the model of pairs and the student's control have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.files import fingerprint
from d3mlx.research.batches import Batch
from d3mlx.research.builds.shipped import finished, float_checkpoint, working
from d3mlx.research.supervised import Supervised


@dataclass(frozen=True)
class Further:
    """A run: the teacher's folder, the batch of each step, the settings of the trainer, and what batches depend on."""

    teacher: str
    batch_at: Callable[[int], Batch]
    plan: TrainConfig
    about: dict[str, Any]


def train_on(run: Further, work: Path, resume: bool, changes: dict[str, Any] | None = None) -> Path:
    """Train and return the folder of the weights in floats. changes: to the teacher's config.json.

    Raises ConfigError as `working` does.
    """
    model, tokenizer, config = float_checkpoint(Path(run.teacher))
    objective = Supervised(run.batch_at, config["mask_token_id"], run.plan.seed)
    with working(work, resume, run.about | {"teacher": fingerprint(run.teacher), "steps": run.plan.steps}):
        Trainer(model, objective, run.plan, work).run(resume=resume)
        return finished(work, model, tokenizer, config | (changes or {}))
