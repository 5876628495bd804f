"""Build the student's control: the teacher, trained further for as many steps as the student, on the same problems.

    python -m d3mlx.research.builds.control --out FOLDER [--work FOLDER] [--resume]

The gain of distillation is the difference between the student and its control.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer

from d3mlx.checkpoints.loader import TEACHER
from d3mlx.data.stories.stories import problem
from d3mlx.data.stories.tokenizer import build_tokenizer
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.examples import Order
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.files import fingerprint
from d3mlx.research.batches import CANVAS, Batch, Source, stack
from d3mlx.research.builds.shipped import (
    HELD_OUT,
    check_out,
    display,
    finished,
    float_checkpoint,
    publish,
    working,
)
from d3mlx.research.builds.student import DISTILL, RECORDED
from d3mlx.research.script import script
from d3mlx.research.supervised import Supervised

STEPS = 3352
"""Steps of the bundled student, in both rounds."""

PROBLEMS = 2 * RECORDED
"""Problems that were recorded for the bundled student."""


class Solutions:
    """The solutions of the first training problems, in an order like the student's.

    Every second batch is masked as block decoders see it, the others anywhere. Most batches of the teacher's last phase
    are of these two kinds.
    """

    def __init__(self, count: int, config: DistillConfig):
        self.source = Source(build_tokenizer(), config.batch_size, config.seed)
        self.examples = self.source.examples([problem(i) for i in range(count)])
        self.order = Order(count, config)

    def batch(self, step: int) -> Batch:
        examples = [self.examples[i] for i in self.order.batch(step, 0)]
        if step % 2:
            return self.source.in_blocks(examples, random.Random(f"control/{step}"))
        longest = max(example.prompt for example in examples) + CANVAS
        return Batch(*stack(examples, longest, self.source.end))


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model. Replaces an existing model.")],
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint and the log.")] = Path("runs/control"),
    teacher: Annotated[str, typer.Option(help="Folder of the teacher.")] = TEACHER,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the work folder.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = STEPS,
    recorded: Annotated[int, typer.Option(min=1, help="Training problems to learn from.")] = PROBLEMS,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Train, quantize, measure and write the control."""
    check_out(out, work)
    plan = TrainConfig(steps, DISTILL.seed, DISTILL.log_every, DISTILL.save_every, optimizer=DISTILL.optimizer(steps))
    model, tokenizer, config = float_checkpoint(Path(teacher))
    objective = Supervised(Solutions(recorded, DISTILL).batch, config["mask_token_id"], plan.seed)
    settings = {"solutions": recorded, "teacher": fingerprint(teacher), "steps": steps}
    with working(work, resume, settings):
        Trainer(model, objective, plan, work).run(resume=resume, watcher=display(plan))
        floats = finished(work, model, tokenizer, config)
    origin = (
        f"The bundled teacher, trained by `python -m d3mlx.research.builds.control` for {steps} more steps on the\n"
        f"solutions of the first {recorded} training problems."
    )
    publish(floats, out, "d3mlx demonstration model: control of the student", origin, problems)


if __name__ == "__main__":
    script(build)
