"""Common parts of the builds: folders, float32 checkpoints, 8-bit conversion, measurements and model cards."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import save_config, save_model
from rich.console import Console

from d3mlx import load
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.loader import in_float32, lazy_model
from d3mlx.checkpoints.tokenizer import load_tokenizer
from d3mlx.cli.render.training import Lines, LivePanel
from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.data.stories.tokenizer import TURN
from d3mlx.distill.trainer import TrainConfig
from d3mlx.errors import ConfigError
from d3mlx.files import holds_files, json_object, locked, write_text, writing
from d3mlx.models import llada
from d3mlx.research.abilities import COLUMNS, abilities, own_answers
from d3mlx.research.experiments.pages import table

BITS = 8
RECIPE = Recipe(Quantization(bits=BITS, group_size=64))
HELD_OUT = 1000

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
arithmetic word problems of one to four steps, with numbers up to 200. Use it to try, test and measure all decoders
without a download.

{origin}
No training problem has exactly the numbers of a held-out problem, nor its unknown names, things or wordings. The
weights have {bits} bits.

Results on {problems} held-out problems of each kind, with {canvas} new tokens per problem:

{figures}

Of {own} questions that were written by hand before the training, `selective` answered {right} correctly.
"""


@dataclass(frozen=True)
class Results:
    """Measurements for a model card.

    problems: of each kind. figures: a Markdown table. right, own: correct answers to the own questions, and all.
    """

    problems: int
    figures: str
    right: int
    own: int


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


def card(title: str, origin: str, config: dict[str, Any], results: Results) -> str:
    """Return the model card. origin: a sentence about the training."""
    skeleton = llada.Model(llada.ModelArgs.from_dict(config))
    parameters = sum(value.size for _, value in tree_flatten(skeleton.parameters())) / 1e6
    details = {"parameters": parameters, "bits": BITS, "canvas": config["max_new_tokens"], **vars(results)}
    return CARD.format(title=title, origin=origin, **details)


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


def publish(floats: Path, out: Path, title: str, origin: str, problems: int) -> None:
    """Quantize a float32 checkpoint, measure it, and write it with its card to `out`, which appears only when complete.

    problems: held-out problems to measure with.
    """
    made = floats.with_name(f"{floats.name}-{BITS}bit")
    shutil.rmtree(made, ignore_errors=True)
    convert(floats, made, RECIPE)
    loaded = load(made)
    own = own_answers(*loaded)
    figures = table(COLUMNS, list(abilities(*loaded, problems)))
    results = Results(problems, figures, sum(answer.correct for answer in own), len(own))
    config = json.loads((floats / "config.json").read_text())
    (made / "README.md").write_text(card(title, origin, config, results))
    with replacing(out) as partial:
        shutil.copytree(made, partial)
    Console().print(figures)
