"""Common parts of the builds: folders, float32 checkpoints, 8-bit conversion, measurements and model cards."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import save_config, save_model
from rich.console import Console
from rich.progress import track
from rich.table import Table

from d3mlx import D3LLM, FastDLLM, Selective, Vanilla, load
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.loader import in_float32, lazy_model
from d3mlx.checkpoints.tokenizer import load_tokenizer
from d3mlx.cli.render.training import Lines, LivePanel
from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.data.tokens import TURN
from d3mlx.decoding.decoder import Preset
from d3mlx.distill.trainer import TrainConfig
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Score, score
from d3mlx.evaluate.run import EvalModel, solve
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded
from d3mlx.files import holds_files, json_object, locked, write_text, writing
from d3mlx.models import llada
from d3mlx.research.experiments.pages import table

BITS = 8
RECIPE = Recipe(Quantization(bits=BITS, group_size=64))
HELD_OUT = 1000

MEASURED: dict[str, Preset] = {
    "vanilla, one token per forward, blocks of 8": Vanilla(block_size=8),
    "vanilla, one token per forward, blocks of 32": Vanilla(),
    "fast-dllm, dual cache, 0.9": FastDLLM(),
    "d3llm, delayed cache, 0.5": D3LLM(),
    "selective, 0.5": Selective(),
}

COLUMNS = ["decoder", "correct answers", "tokens per forward", "rows per token"]

CARD = """---
library_name: mlx
pipeline_tag: text-generation
tags:
- mlx
- diffusion
license: mit
---

# {title}

A masked diffusion language model with {parameters:.1f} million parameters in LLaDA's architecture. It solves only
arithmetic word problems of one to four steps, with numbers up to 200, in the wording of its training data. Use it to
try, test and measure all decoders without a download.

{origin}
No training problem has exactly the numbers of a held-out problem. The weights have {bits} bits.

Results on {problems} with {canvas} new tokens:

{figures}
"""


def save_floats(folder: Path, model: nn.Module, tokenizer: Any, config: dict[str, Any]) -> None:
    """Write a checkpoint for the converter. Raises ConfigError if it cannot be written."""
    with writing(folder):
        save_model(folder, model)
        save_config(config, folder / "config.json")
        ends = [config["eos_token_id"], tokenizer.convert_tokens_to_ids(TURN)]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        tokenizer.save_pretrained(folder)


def finished(work: Path, model: nn.Module, tokenizer: Any, config: dict[str, Any]) -> Path:
    """Write the result of a training into a folder in `work`, and return that folder."""
    floats = work / "model-float32"
    shutil.rmtree(floats, ignore_errors=True)
    save_floats(floats, model, tokenizer, config)
    return floats


def float_checkpoint(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return model, tokenizer and config.json of a checkpoint, quantized or not, as `save_floats` takes them."""
    checkpoint = open_checkpoint(folder)
    config = {name: value for name, value in checkpoint.config.items() if not name.startswith("quantization")}
    return in_float32(lazy_model(checkpoint)), load_tokenizer(checkpoint), config


def measure(model: Any, tokenizer: Any, decoder: Preset, count: int, questions: int = 1) -> Score:
    """Return the score on the first `count` held-out tasks, each with this number of questions."""
    subject = EvalModel(model, tokenizer)
    held_out = Embedded(TaskOptions(), "llada", questions=questions)
    return score(list(track(solve(subject, held_out, decoder, range(count)), "solving", total=count)))


def figures(scores: dict[str, Score]) -> list[list[str]]:
    return [
        [name, f"{total.accuracy:.1%}", f"{total.tokens_per_forward:.2f}", f"{total.rows_per_token:.1f}"]
        for name, total in scores.items()
    ]


def card(title: str, origin: str, scores: dict[str, Score], config: dict[str, Any], questions: int) -> str:
    """Return the model card. origin: a sentence about the training."""
    count = next(iter(scores.values())).problems
    problems = (
        f"{count} held-out problems" if questions == 1 else f"{count} prompts with {questions} held-out problems each,"
    )
    skeleton = llada.Model(llada.ModelArgs.from_dict(config))
    parameters = sum(value.size for _, value in tree_flatten(skeleton.parameters())) / 1e6
    details = {"parameters": parameters, "bits": BITS, "problems": problems, "canvas": config["max_new_tokens"]}
    return CARD.format(title=title, origin=origin, figures=table(COLUMNS, figures(scores)), **details)


def show(scores: dict[str, Score]) -> None:
    shown = Table(*COLUMNS)
    for row in figures(scores):
        shown.add_row(*row)
    Console().print(shown)


def display(plan: TrainConfig) -> LivePanel | Lines:
    """Return the display of a training run: a panel on a terminal, otherwise lines on standard error."""
    return LivePanel("training") if sys.stderr.isatty() else Lines(plan.log_every)


def check_out(out: Path, work: Path) -> None:
    """Raise ConfigError if a finished model cannot replace `out`.

    It cannot if `out` is a file or contains other files than a model, or if one folder is inside the other.
    """
    out, work = absolute(out), absolute(work)
    if out.is_relative_to(work) or work.is_relative_to(out):
        raise ConfigError(f"--out {out} and --work {work}: one is inside the other. Choose separate folders.")
    existing = out if os.path.lexists(out) else next(parent for parent in out.parents if os.path.lexists(parent))
    if not existing.is_dir() or out.is_symlink():
        raise ConfigError(f"{existing} is not a folder. Choose a new folder for --out.")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    is_model = "model_type" in (json_object(out / "config.json") or {}) and any(out.glob("*.safetensors"))
    if names and (not is_model or any(name.startswith(".") for name in names)):
        raise ConfigError(f"{out} contains other files than a model. Choose an empty or new folder for --out.")


def absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


@contextmanager
def working(work: Path, resume: bool, settings: dict[str, Any]) -> Iterator[None]:
    """Lock the work folder of a training, and write its settings.

    Raises ConfigError if the folder contains a run and `resume` is false, or a run with other settings, or if another
    run uses it.
    """
    if holds_files(work) and not resume:
        raise ConfigError(f"{work} already contains a run. Continue it with --resume, or choose another --work.")
    with locked(work):
        path = work / "settings.json"
        before = json_object(path)
        if before not in (None, settings):
            raise ConfigError(f"{work} contains a run with other settings: {before}. Choose another --work.")
        write_text(path, json.dumps(settings) + "\n")
        yield


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield the path of a new folder, which replaces `out` if the block ends without an error."""
    out = absolute(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish(floats: Path, out: Path, title: str, origin: str, problems: int, questions: int = 1) -> None:
    """Quantize a float32 checkpoint, measure it, and write it with its card to `out`, which appears only when complete.

    problems: held-out tasks to measure with. questions: problems per task.
    """
    made = floats.with_name(f"{floats.name}-{BITS}bit")
    shutil.rmtree(made, ignore_errors=True)
    convert(floats, made, RECIPE)
    scores = {name: measure(*load(made), decoder, problems, questions) for name, decoder in MEASURED.items()}
    config = json.loads((floats / "config.json").read_text())
    (made / "README.md").write_text(card(title, origin, scores, config, questions))
    with replacing(out) as partial:
        shutil.copytree(made, partial)
    show(scores)
