"""`d3mlx distill`: train a student on trajectories, or a model on answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import mlx.core as mx
import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli.common import human_size
from d3mlx.cli.render.training import watcher
from d3mlx.distill.config import DistillConfig, build_config, read_config
from d3mlx.distill.memory import Estimate
from d3mlx.distill.run import distill as train
from d3mlx.distill.run import memory_needed, prepare
from d3mlx.errors import ConfigError

DATA, TRAINED, LOSS, OPTIMIZER = "Model and data", "What is trained", "Objective", "Optimizer"


def option(text: str, panel: str, *names: str) -> Any:
    """An option whose default is that of a preset, a config file, or `DistillConfig`."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


Text: TypeAlias = str | None
Whole: TypeAlias = int | None
Real: TypeAlias = float | None
Flag: TypeAlias = bool | None


def memory_line(estimate: Estimate) -> str:
    """Return the estimate of memory in one line."""
    parts = {"weights": estimate.weights, "what is trained": estimate.training}
    parts |= {"activations": estimate.activations, "head": estimate.head}
    detail = ", ".join(f"{name} {human_size(size)}" for name, size in parts.items())
    return f"Training needs about {human_size(estimate.total)}: {detail}."


def distill(
    context: typer.Context,
    model: Annotated[
        Text, option("Folder, hub id, or embedded (default), teacher or pairs, which ship.", DATA, "--model", "-m")
    ] = None,
    data: Annotated[
        Text,
        option(
            "A folder of `d3mlx trajectories`; JSONL or parquet with prompt and completion, or messages; a folder with "
            "train.jsonl; or `embedded`.",
            DATA,
        ),
    ] = None,
    adapter_path: Annotated[Text, option("Folder of the adapters, `adapters`.", DATA)] = None,
    only_correct: Annotated[Flag, option("Train on answers that were found right, and no others.", DATA)] = None,
    max_length: Annotated[Whole, option("Tokens of a sequence, 384.", DATA)] = None,
    response_length: Annotated[
        Whole, option("Batches as long as their longest sequence, with at most this after the prompt.", DATA)
    ] = None,
    preset: Annotated[Text, option("Published recipe: llada, dream or coder.", DATA)] = None,
    config: Annotated[
        Path | None, option("YAML or TOML file with settings under the names of these options.", DATA, "--config", "-c")
    ] = None,
    fine_tune_type: Annotated[Text, option("lora or full.", TRAINED)] = None,
    num_layers: Annotated[Whole, option("Layers from the last, -1 for all.", TRAINED)] = None,
    rank: Annotated[Whole, option("Rank of LoRA, 16.", TRAINED)] = None,
    scale: Annotated[Real, option("Scale of LoRA (alpha over rank), 2.", TRAINED)] = None,
    dropout: Annotated[Real, option("Dropout of LoRA, 0.", TRAINED)] = None,
    targets: Annotated[Text, option("Projections with LoRA: all seven, or names between commas.", TRAINED)] = None,
    grad_checkpoint: Annotated[
        Flag, option("Recompute layers in the backward pass: less memory, a third more work.", TRAINED)
    ] = None,
    objective: Annotated[Text, option("d3llm (trajectory distillation) or sft (plain masked diffusion).", LOSS)] = None,
    block_sizes: Annotated[Text, option("Tokens in a block, epoch by epoch: 16,16,24,24,32,32.", LOSS)] = None,
    min_mask_ratio: Annotated[Real, option("Lower bound of the mask ratio at the start of the run, 0.", LOSS)] = None,
    max_mask_ratio: Annotated[
        Real, option("Upper bound of the mask ratio, to which the lower one rises, 0.8.", LOSS)
    ] = None,
    blockwise: Annotated[Flag, option("Hide one block of the answer, or the whole of it.", LOSS)] = None,
    random_masks: Annotated[Flag, option("Hide at random instead of in the teacher's order.", LOSS)] = None,
    selection: Annotated[
        Text,
        option(
            "How a mask ratio picks a moment of the trajectory: published, which shows one token too many; or segment, "
            "which ranks the block's own positions.",
            LOSS,
        ),
    ] = None,
    complementary: Annotated[Flag, option("Also learn the positions that were shown.", LOSS)] = None,
    entropy_weight: Annotated[Real, option("Weight of the entropy of right predictions, 2.", LOSS)] = None,
    entropy_temperature: Annotated[
        Real, option("Temperature of the predictions whose entropy counts, 0.5.", LOSS)
    ] = None,
    entropy_on_complement: Annotated[
        Flag, option("Entropy of right predictions also where the shown positions are learned, as for Dream.", LOSS)
    ] = None,
    batch_size: Annotated[Whole, option("Sequences of a forward, all processes together, 4.", OPTIMIZER)] = None,
    grad_accumulation_steps: Annotated[Whole, option("Batches of a step, 4.", OPTIMIZER)] = None,
    epochs: Annotated[Real, option("Times that every example is seen, 6.", OPTIMIZER)] = None,
    iters: Annotated[Whole, option("Steps, instead of epochs.", OPTIMIZER)] = None,
    learning_rate: Annotated[Real, option("Learning rate after the warm-up, 2e-5.", OPTIMIZER)] = None,
    lr_schedule: Annotated[
        Text, option("How the rate goes on after the warm-up: constant or cosine.", OPTIMIZER)
    ] = None,
    warmup: Annotated[Real, option("Share of the steps in which the rate rises, 0.", OPTIMIZER)] = None,
    weight_decay: Annotated[Real, option("Weight decay of AdamW, 0.01.", OPTIMIZER)] = None,
    clip: Annotated[Real, option("Largest norm of the gradient, 1.", OPTIMIZER)] = None,
    seed: Annotated[Whole, option("Fixes order, masks and start weights, 42.", OPTIMIZER)] = None,
    save_every: Annotated[Whole, option("Steps between checkpoints, 100.", OPTIMIZER)] = None,
    log_every: Annotated[Whole, option("Steps between records of the log, 10.", OPTIMIZER)] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the checkpoint in the adapter folder; give the other options as before."
        ),
    ] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say how much memory it needs, and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train even if the estimate exceeds the memory.")] = False,
) -> None:
    """Train LoRA adapters, or all weights, for decoding in parallel.

    The published objective (d3LLM) hides one block of an answer in the order in which a teacher committed it, learns
    the hidden tokens, and makes right predictions sure. Writes mlx-lm's adapter folder: adapters.safetensors,
    adapter_config.json, a numbered copy at each checkpoint; with log.jsonl and the state that --resume needs.
    """
    effective = settings(context, config)

    if estimate:
        sys.stdout.write(memory_line(memory_needed(effective)) + "\n")
        return
    if not effective.data:
        raise ConfigError("Say what to train on with --data, for example a folder of d3mlx trajectories.")
    needed = memory_line(prepare(effective, force))
    if mx.distributed.init().rank() == 0:
        sys.stderr.write(needed + "\n")
    steps = train(effective, watcher, resume)
    if mx.distributed.init().rank() == 0:
        note = "" if steps else "The run had ended before, so nothing was trained. "
        sys.stderr.write(f"{note}The adapters are in {effective.adapter_path}.\n")


OWN = {"config", "resume", "estimate", "force"}
"""Options that are no settings of a run."""


def settings(context: typer.Context, file: Path | None) -> DistillConfig:
    """The effective configuration: defaults, preset, config file, flags."""

    flags = {name: value for name, value in context.params.items() if name not in OWN and value is not None}
    return build_config({"model": EMBEDDED, **(read_config(file) if file else {})}, flags)
