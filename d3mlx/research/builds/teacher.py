"""Build the teacher from a seed: data, tokenizer, training, quantization and measurements.

    python -m d3mlx.research.builds.teacher --out FOLDER [--work FOLDER] [--resume]

The build takes hours with a fast BLAS preloaded (see docs/benchmarking.md). Two processes under `mlx.launch` share it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import typer
from mlx.utils import tree_flatten, tree_unflatten
from transformers import PreTrainedTokenizerFast

from d3mlx.data.stories.tokenizer import CONTEXT, END, MASK, build_tokenizer
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.models import llada
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.curriculum import Curriculum
from d3mlx.research.builds.shipped import HELD_OUT, check_out, display, finished, publish, working
from d3mlx.research.muon import Muon
from d3mlx.research.script import script
from d3mlx.research.supervised import Supervised, mask_batch, masked_loss

STEPS = 14000
BATCH = 48
WIDTH, LAYERS, HEADS, FF = 256, 5, 4, 704
LOGIT_MULTIPLE = 64
"""The vocabulary is padded to a multiple of the quantization group, as LLaDA's embedding_size allows."""


def config_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the config.json, with the published field names."""
    end, size = tokenizer.convert_tokens_to_ids(END), len(tokenizer)
    return {
        "activation_type": "silu",
        "architectures": ["LLaDAModelLM"],
        "block_type": "llama",
        "d_model": WIDTH,
        "embedding_size": -(-size // LOGIT_MULTIPLE) * LOGIT_MULTIPLE,
        "eos_token_id": end,
        "layer_norm_type": "rms",
        "mask_token_id": tokenizer.convert_tokens_to_ids(MASK),
        "max_new_tokens": CANVAS,
        "max_sequence_length": CONTEXT,
        "mlp_hidden_size": FF,
        "model_type": "llada",
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "n_layers": LAYERS,
        "pad_token_id": end,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_theta": 10000.0,
        "vocab_size": size,
        "weight_tying": False,
    }


def initialize(model: nn.Module, layers: int, seed: int) -> None:
    """Draw random weights for all matrices of `model`.

    Standard deviations: 0.5 for embeddings and width^-0.5 for linear layers, divided by sqrt(2 layers) where a layer
    writes into the residual stream.
    """
    mx.random.seed(seed)
    parameters: Any = tree_flatten(model.parameters())
    start: list[tuple[str, mx.array]] = []
    for name, value in parameters:
        if value.ndim < 2:
            continue
        scale = 0.5 if "embed" in name else value.shape[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            scale /= (2 * layers) ** 0.5
        start.append((name, scale * mx.random.normal(value.shape)))
    model.update(tree_unflatten(start))
    mx.eval(model.parameters())


def new_model(config: dict[str, Any], seed: int) -> llada.Model:
    model = llada.Model(llada.ModelArgs.from_dict(config))
    initialize(model, config["n_layers"], seed)
    return model


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model. Replaces an existing model.")],
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint and the log.")] = Path("runs/build-teacher"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, initial weights and masks.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the work folder.")] = False,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Train, quantize, measure and write the teacher."""
    check_out(out, work)
    tokenizer = build_tokenizer()
    config = config_of(tokenizer)
    model, curriculum, mask_id = new_model(config, seed), Curriculum(tokenizer, BATCH, seed), config["mask_token_id"]
    source = curriculum.source
    validation = [
        mask_batch(source.problems(i, split="validation"), mask_id, np.random.default_rng(i)) for i in range(8)
    ]

    def monitor(model: Any) -> dict[str, float]:
        return {"validation_loss": float(np.mean([masked_loss(model, batch).item() for batch in validation]))}

    plan = TrainConfig(steps=STEPS, seed=seed, save_every=250, monitor_every=500)
    trainer = Trainer(model, Supervised(curriculum.batch, mask_id, seed), plan, work)
    trainer.optimizer = Muon(plan.optimizer, STEPS)
    if not trainer.writes:
        trainer.run(resume=resume)
        return
    with working(work, resume, {"seed": seed, "steps": STEPS}):
        trainer.run(resume=resume, monitor=monitor, watcher=display(plan))
        floats = finished(work, model, tokenizer, config)
    origin = (
        f"Built from seed {seed} by `python -m d3mlx.research.builds.teacher`: {STEPS} steps of {BATCH} generated "
        "problems,\nequations, conversations, solutions with holes and recall exercises."
    )
    publish(floats, out, "d3mlx demonstration model: teacher", origin, problems)


if __name__ == "__main__":
    script(build)
