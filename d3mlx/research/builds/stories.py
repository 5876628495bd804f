"""Train the model of stories from a seed, and write its float32 weights.

    python -m d3mlx.research.builds.stories --work FOLDER [--steps N] [--resume]

The training takes about seven hours on one core with a fast BLAS preloaded (see docs/benchmarking.md). Two processes
under `mlx.launch` take little more than half of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from d3mlx.data.stories.tokenizer import build_tokenizer
from d3mlx.data.tokens import CONTEXT
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.shipped import display, finished, working
from d3mlx.research.builds.story_curriculum import StoryCurriculum
from d3mlx.research.builds.teacher import config_of, new_model
from d3mlx.research.script import script
from d3mlx.research.story_batches import QUESTIONS
from d3mlx.research.supervised import Supervised, mask_batch, masked_loss

STEPS = 24000
BATCH = 48
SIZES = {"d_model": 256, "n_layers": 5, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 704}
"""Fields of config.json: 4.9 million parameters with the embeddings."""


def story_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the config.json."""
    return config_of(tokenizer) | SIZES | {"max_sequence_length": CONTEXT + QUESTIONS * CANVAS}


def build(
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint, the log and the weights.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = STEPS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, initial weights and masks.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the work folder.")] = False,
) -> None:
    """Train the model and write its float32 weights."""
    tokenizer = build_tokenizer()
    config = story_config(tokenizer)
    model, curriculum, mask_id = (
        new_model(config, seed),
        StoryCurriculum(tokenizer, BATCH, seed),
        config["mask_token_id"],
    )
    source = curriculum.source
    validation = [
        mask_batch(source.problems(i, split="validation"), mask_id, np.random.default_rng(i)) for i in range(8)
    ]

    def monitor(model: Any) -> dict[str, float]:
        return {"validation_loss": float(np.mean([masked_loss(model, batch).item() for batch in validation]))}

    plan = TrainConfig(steps=steps, seed=seed, save_every=250, monitor_every=500)
    trainer = Trainer(model, Supervised(curriculum.batch, mask_id, seed), plan, work)
    if not trainer.writes:
        trainer.run(resume=resume)
        return
    with working(work, resume, {"seed": seed, "steps": steps}):
        trainer.run(resume=resume, monitor=monitor, watcher=display(plan))
        floats = finished(work, model, tokenizer, config)
    Console().print(f"Wrote {floats}.")


if __name__ == "__main__":
    script(build)
