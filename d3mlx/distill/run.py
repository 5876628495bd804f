"""A training run from its configuration: load, check, train, write adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from d3mlx.api import end_ids
from d3mlx.checkpoint import open_checkpoint
from d3mlx.distill.adapters import STATE, AdapterFolder, checkpointed, make_trainable
from d3mlx.distill.config import DistillConfig, check_same_run
from d3mlx.distill.examples import load_examples
from d3mlx.distill.memory import Estimate, estimate, refuse_if_over_limit
from d3mlx.distill.objectives import OBJECTIVES
from d3mlx.distill.trainer import CHECKPOINT, TrainConfig, Trainer, compute_dtype
from d3mlx.errors import ConfigError
from d3mlx.hub import fetch
from d3mlx.loader import load

MakeWatcher = Callable[[DistillConfig, int], Any]
"""The display of a run of a number of examples."""


def memory_needed(config: DistillConfig) -> Estimate:
    """What the run will take, from the checkpoint's headers alone. Raises CheckpointError."""
    return estimate(open_checkpoint(fetch(config.model)), config, mx.distributed.init().size())


def check_folder(config: DistillConfig, resume: bool) -> None:
    """Raise ConfigError if the adapter folder holds a run that is neither resumed nor the same."""
    folder = Path(config.adapter_path)
    started = (folder / CHECKPOINT).is_file()
    if started and not resume:
        raise ConfigError(f"{folder} already holds a run; go on with --resume, or give another --adapter-path.")
    if resume and not started:
        raise ConfigError(f"{folder} holds no run to resume.")
    if started:
        check_same_run(config, json.loads((folder / STATE).read_text(encoding="utf-8")))


def distill(
    config: DistillConfig, make_watcher: MakeWatcher, resume: bool = False, stop_after: int | None = None
) -> None:
    """Train to the end, or for `stop_after` steps. Raises ConfigError, DataError, CheckpointError."""
    world = mx.distributed.init()
    if config.batch_size % world.size():
        raise ConfigError(f"batch-size {config.batch_size} cannot be shared evenly by {world.size()} processes.")
    if world.rank() == 0:
        check_folder(config, resume)
    quantized = open_checkpoint(fetch(config.model)).quantization is not None
    model, tokenizer = load(config.model)
    network: Any = model
    examples = load_examples(config, model, tokenizer)
    make_trainable(network, config, quantized)
    objective = OBJECTIVES[config.objective](examples, config, model, end_ids(model, tokenizer)[0])
    folder = AdapterFolder(config, len(model.layers), compute_dtype(network))
    if world.rank() == 0:
        folder.begin()
    plan = TrainConfig(
        objective.steps, config.seed, config.log_every, config.save_every, optimizer=config.optimizer(objective.steps)
    )
    trainer = Trainer(network, objective, plan, folder.path, folder.save)
    with checkpointed(model, config.grad_checkpoint):
        trainer.run(resume=resume, stop_after=stop_after, watcher=make_watcher(config, len(examples)))


def prepare(config: DistillConfig, force: bool) -> Estimate:
    """The estimate; MemoryLimitError if it exceeds what this machine can give, unless `force`."""
    found = memory_needed(config)
    refuse_if_over_limit(found, force)
    return found
