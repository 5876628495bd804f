"""`d3mlx distill`: train a student on trajectories, or a model on answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import mlx.core as mx
import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli.common import Model, human_size
from d3mlx.cli.render.training import watcher
from d3mlx.distill.config import DistillConfig, build_config, read_config
from d3mlx.distill.memory import Estimate
from d3mlx.distill.run import distill as train
from d3mlx.distill.run import memory_needed, prepare
from d3mlx.errors import ConfigError
from d3mlx.terminal import write

DATA, TRAINED, LOSS, OPTIMIZER, RUN = "Data", "Trained weights", "Objective", "Optimizer", "Run"


def default_text(value: Any) -> str:
    """Return a default of `DistillConfig` as a user would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def setting(name: str, text: str, panel: str) -> Any:
    """Return the option for a setting of `DistillConfig`. The help page shows the default of the setting."""
    value = getattr(DistillConfig, name, None)
    return typer.Option(help=text, rich_help_panel=panel, show_default=False if value is None else default_text(value))


Text: TypeAlias = str | None
Whole: TypeAlias = int | None
Real: TypeAlias = float | None
Flag: TypeAlias = bool | None


def memory_line(estimate: Estimate) -> str:
    """Return an estimate of memory as one line."""
    parts = {"weights": estimate.weights, "gradients and optimizer": estimate.training}
    parts |= {"activations": estimate.activations, "head": estimate.head}
    detail = ", ".join(f"{name} {human_size(size)}" for name, size in parts.items())
    return f"Training needs about {human_size(estimate.total)}: {detail}."


def distill(
    context: typer.Context,
    model: Model = None,
    data: Annotated[
        Text,
        typer.Option(
            help="Folder of d3mlx trajectories; JSONL or parquet file with prompt and completion, or with messages; "
            "folder with train.jsonl; or embedded.",
            rich_help_panel=DATA,
        ),
    ] = None,
    only_correct: Annotated[
        Flag, setting("only_correct", "Use only answers that were checked as correct.", DATA)
    ] = None,
    max_length: Annotated[Whole, setting("max_length", "Maximum number of tokens per sequence.", DATA)] = None,
    response_length: Annotated[
        Whole,
        setting(
            "response_length", "Maximum number of tokens after the prompt. Batches then have different lengths.", DATA
        ),
    ] = None,
    fine_tune_type: Annotated[Text, setting("fine_tune_type", "lora or full.", TRAINED)] = None,
    num_layers: Annotated[
        Whole, setting("num_layers", "Number of layers to train, counted from the last. -1 trains all.", TRAINED)
    ] = None,
    rank: Annotated[Whole, setting("rank", "Rank of LoRA.", TRAINED)] = None,
    scale: Annotated[Real, setting("scale", "Scale of LoRA (alpha divided by rank).", TRAINED)] = None,
    dropout: Annotated[Real, setting("dropout", "Dropout of LoRA.", TRAINED)] = None,
    targets: Annotated[
        Text,
        typer.Option(
            help="Projections with LoRA, for example q_proj,v_proj.", show_default="all seven", rich_help_panel=TRAINED
        ),
    ] = None,
    grad_checkpoint: Annotated[
        Flag,
        setting(
            "grad_checkpoint",
            "Compute layers again in the backward pass. This needs less memory and a third more work.",
            TRAINED,
        ),
    ] = None,
    preset: Annotated[
        Text, typer.Option(help="Published recipe with all settings: llada, dream or coder.", rich_help_panel=LOSS)
    ] = None,
    objective: Annotated[
        Text, setting("objective", "d3llm (trajectory distillation) or sft (plain masked diffusion).", LOSS)
    ] = None,
    block_sizes: Annotated[Text, setting("block_sizes", "Tokens per block, one number per epoch.", LOSS)] = None,
    min_mask_ratio: Annotated[
        Real, setting("min_mask_ratio", "Lower limit of the mask ratio at the start of the run.", LOSS)
    ] = None,
    max_mask_ratio: Annotated[
        Real, setting("max_mask_ratio", "Upper limit of the mask ratio. The lower limit rises to it.", LOSS)
    ] = None,
    blockwise: Annotated[Flag, setting("blockwise", "Mask one block of the answer, not all of it.", LOSS)] = None,
    random_masks: Annotated[
        Flag, setting("random_masks", "Mask at random, not in the order of the teacher.", LOSS)
    ] = None,
    selection: Annotated[
        Text,
        setting(
            "selection",
            "Choice of the step that a mask ratio means: published (shows one token too many) or segment (ranks the "
            "positions of the block).",
            LOSS,
        ),
    ] = None,
    complementary: Annotated[
        Flag, setting("complementary", "Also train on the positions that were not masked.", LOSS)
    ] = None,
    entropy_weight: Annotated[
        Real, setting("entropy_weight", "Weight of the entropy of correct predictions.", LOSS)
    ] = None,
    entropy_temperature: Annotated[
        Real, setting("entropy_temperature", "Temperature of the predictions in the entropy loss.", LOSS)
    ] = None,
    entropy_on_complement: Annotated[
        Flag,
        setting("entropy_on_complement", "Use the entropy loss also with --complementary, as for Dream.", LOSS),
    ] = None,
    batch_size: Annotated[
        Whole, setting("batch_size", "Sequences per forward, in all processes together.", OPTIMIZER)
    ] = None,
    grad_accumulation_steps: Annotated[
        Whole, setting("grad_accumulation_steps", "Batches per training step.", OPTIMIZER)
    ] = None,
    epochs: Annotated[Real, setting("epochs", "Number of passes over the data.", OPTIMIZER)] = None,
    iters: Annotated[Whole, setting("iters", "Number of training steps, instead of epochs.", OPTIMIZER)] = None,
    learning_rate: Annotated[Real, setting("learning_rate", "Learning rate after the warm-up.", OPTIMIZER)] = None,
    lr_schedule: Annotated[
        Text, setting("lr_schedule", "Learning rate after the warm-up: constant or cosine.", OPTIMIZER)
    ] = None,
    warmup: Annotated[Real, setting("warmup", "Share of the steps with a rising learning rate.", OPTIMIZER)] = None,
    weight_decay: Annotated[Real, setting("weight_decay", "Weight decay of AdamW.", OPTIMIZER)] = None,
    clip: Annotated[Real, setting("clip", "Maximum norm of the gradient.", OPTIMIZER)] = None,
    seed: Annotated[Whole, setting("seed", "Seed of order, masks and initial weights.", OPTIMIZER)] = None,
    adapter_path: Annotated[Text, setting("adapter_path", "Output folder of the adapters.", RUN)] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="YAML or TOML file with settings. Names are those of options.", rich_help_panel=RUN
        ),
    ] = None,
    save_every: Annotated[Whole, setting("save_every", "Steps between two checkpoints.", RUN)] = None,
    log_every: Annotated[Whole, setting("log_every", "Steps between two log records.", RUN)] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue from the last checkpoint. Give the other options as before.",
            rich_help_panel=RUN,
        ),
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Show the memory that the run needs, and stop.", rich_help_panel=RUN)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if the estimate exceeds the memory.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Train a model to decode in fewer forwards.

    The d3LLM objective masks a block of an answer in the order in which a teacher committed it. The student learns the
    masked tokens, and an entropy loss makes correct predictions more confident. --objective sft needs no teacher.

    The output is an adapter folder as in mlx-lm, with numbered checkpoints, log.jsonl, and the state for --resume.

    Example: d3mlx distill --model teacher --data runs/teacher --iters 20 --estimate
    """
    effective = settings(context, config)
    if estimate:
        write(sys.stdout, memory_line(memory_needed(effective)) + "\n")
        return
    if not effective.data:
        raise ConfigError("There is no training data. Add --data, for example a folder of d3mlx trajectories.")
    needed = memory_line(prepare(effective, force))

    def begin(config: DistillConfig, rows: int) -> Any:
        if mx.distributed.init().rank() == 0:
            write(sys.stderr, needed + "\n")
        return watcher(config, rows)

    steps = train(effective, begin, resume)
    if mx.distributed.init().rank() == 0:
        note = "" if steps else "The run was already complete. "
        write(sys.stderr, f"{note}The adapters are in {effective.adapter_path}.\n")


OWN = {"config", "resume", "estimate", "force"}
"""Options that are not settings of `DistillConfig`."""


def settings(context: typer.Context, file: Path | None) -> DistillConfig:
    """Return the effective configuration: defaults, then preset, config file and flags. Raises ConfigError."""
    flags = {name: value for name, value in context.params.items() if name not in OWN and value is not None}
    return build_config({"model": EMBEDDED, **(read_config(file) if file else {})}, flags)
