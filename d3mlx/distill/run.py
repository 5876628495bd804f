"""A training run from its configuration: load, check, train, write adapters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx

from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import compute_dtype, get_weights, load
from d3mlx.distill.adapters import STATE, WEIGHTS, AdapterFolder, check_layers, checkpointed, make_trainable, read_state
from d3mlx.distill.config import DistillConfig, check_same_content, check_same_run, check_trainable
from d3mlx.distill.examples import content_hash, load_examples
from d3mlx.distill.memory import Estimate, estimate, refuse_if_over_limit
from d3mlx.distill.objectives import OBJECTIVES
from d3mlx.distill.trainer import CHECKPOINT, TrainConfig, Trainer
from d3mlx.ends import end_ids
from d3mlx.errors import ConfigError
from d3mlx.files import fingerprint, holds_files, locked
from d3mlx.models import traits_of

MakeWatcher = Callable[[DistillConfig, int], Any]
"""Makes the display of a run, for a configuration and a number of examples."""


def memory_needed(config: DistillConfig) -> Estimate:
    """Return the memory of a run, estimated from the checkpoint's headers. Raises CheckpointError, ConfigError."""
    checkpoint = open_checkpoint(fetch(config.model))
    check_trainable(traits_of(checkpoint.family))
    check_layers(config, checkpoint.args.shape().layers)
    return estimate(checkpoint, config, mx.distributed.init().size())


def check_folder(config: DistillConfig, resume: bool) -> None:
    """Raise ConfigError if the adapter folder contains other files, or a run that does not fit this one."""
    folder = Path(config.adapter_path)
    foreign = holds_files(folder) and ((folder / WEIGHTS).exists() or not (folder / STATE).is_file())
    started = (folder / CHECKPOINT).is_file()
    if started and not resume:
        raise ConfigError(
            f"{folder} already contains a run. Continue it with --resume, or choose another --adapter-path."
        )
    if resume and not started:
        raise ConfigError(f"{folder} contains no run to resume.")
    if started:
        check_same_run(config, read_state(folder))
    elif foreign:
        raise ConfigError(f"{folder} contains other files. Choose another --adapter-path.")


def distill(
    config: DistillConfig, make_watcher: MakeWatcher, resume: bool = False, stop_after: int | None = None
) -> int:
    """Train to the end, or for `stop_after` steps. Return the number of steps, 0 if the run was already complete.

    Raises ConfigError, DataError, CheckpointError. If the run cannot begin, the adapter folder does not change.
    """
    world = mx.distributed.init()
    writes = world.rank() == 0
    if config.batch_size % world.size():
        raise ConfigError(f"batch-size must be a multiple of the {world.size()} processes, not {config.batch_size}.")
    if writes:
        check_folder(config, resume)
    checkpoint = open_checkpoint(fetch(config.model))
    check_trainable(traits_of(checkpoint.family))
    quantized = checkpoint.quantization is not None
    get_weights(checkpoint)
    model, tokenizer = load(checkpoint.folder)
    network: Any = model
    examples = load_examples(config, model, tokenizer)
    make_trainable(network, config, quantized)
    objective = OBJECTIVES[config.objective](examples, config, model, end_ids(model, tokenizer)[0])
    content = {"model_fingerprint": str(fingerprint(checkpoint.folder)), "data_fingerprint": content_hash(examples)}
    folder = AdapterFolder(config, content, len(model.layers), compute_dtype(network))
    plan = TrainConfig(
        objective.steps, config.seed, config.log_every, config.save_every, optimizer=config.optimizer(objective.steps)
    )
    with locked(folder.path) if writes else nullcontext(), checkpointed(model, config.grad_checkpoint):
        trainer = Trainer(network, objective, plan, folder.path, folder.save)
        if writes:
            check_folder(config, resume)
            if resume:
                check_same_content(config, content, read_state(folder.path))
            trainer.own_state(resume)
            folder.begin()
        return trainer.run(resume=resume, stop_after=stop_after, watcher=make_watcher(config, len(examples)))


def prepare(config: DistillConfig, force: bool) -> Estimate:
    """Return the memory estimate. Raises MemoryLimitError if it exceeds this machine's memory, unless `force`."""
    needed = memory_needed(config)
    refuse_if_over_limit(needed, force)
    return needed
