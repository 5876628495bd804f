"""Build the model of pairs: the teacher, trained further for two problems in one prompt and a canvas twice as long.

    python -m d3mlx.research.builds.pairs --out FOLDER [--work FOLDER] [--resume]

Its answers are long enough to measure decoders. For an answer to one problem, most of the work is the first pass over
the prompt. The build takes hours on one core with a fast BLAS preloaded (see docs/benchmarking.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from d3mlx.checkpoints.loader import TEACHER
from d3mlx.data.tokens import CONTEXT, build_tokenizer
from d3mlx.distill.optimizer import OptimizerConfig
from d3mlx.distill.trainer import TrainConfig
from d3mlx.research.batches import CANVAS, Source
from d3mlx.research.builds.curriculum import Curriculum
from d3mlx.research.builds.further import Further, train_on
from d3mlx.research.builds.shipped import check_out, publish
from d3mlx.research.script import script

QUESTIONS = 2
STEPS = 4000
BATCH = 24

LAST_PHASE = Curriculum(recall_steps=0, phases=Curriculum().phases[-1:])
"""The teacher's last phase."""


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model. Replaces an existing model.")],
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint and the log.")] = Path("runs/pairs"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the work folder.")] = False,
    problems: Annotated[int, typer.Option(min=1, help="Held-out pairs to measure with.")] = 100,
) -> None:
    """Train, quantize, measure and write the model of pairs."""
    check_out(out, work)
    source = Source(build_tokenizer(), BATCH, 0, QUESTIONS)
    plan = TrainConfig(STEPS, save_every=100, optimizer=OptimizerConfig(peak_rate=1e-3, average=0.99))
    further = Further(TEACHER, lambda step: LAST_PHASE.batch(source, step), plan, {"questions": QUESTIONS})
    lengths = {"max_new_tokens": QUESTIONS * CANVAS, "max_sequence_length": CONTEXT + CANVAS}
    floats = train_on(further, work, resume, lengths)
    origin = (
        f"A prompt has two problems. The model is the bundled teacher, trained for {STEPS} more steps of {BATCH} by\n"
        "`python -m d3mlx.research.builds.pairs`."
    )
    publish(floats, out, "d3mlx demonstration model: pairs", origin, problems, QUESTIONS)


if __name__ == "__main__":
    script(build)
