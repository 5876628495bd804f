"""What the models that ship with the package have in common: floats, their 8-bit conversion, figures, card, folder."""

from __future__ import annotations

import json
import shutil
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

from d3mlx import D3LLM, D3MLX, FastDLLM, Vanilla, load
from d3mlx.checkpoint import open_checkpoint
from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.data.tokens import TURN
from d3mlx.decoding.presets import Preset
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Score, score
from d3mlx.evaluate.run import Subject, solve
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded
from d3mlx.experiments.readme import table
from d3mlx.files import holds_files
from d3mlx.loader import in_float32, lazy_model
from d3mlx.models import llada
from d3mlx.tokenizer import load_tokenizer

BITS = 8
RECIPE = Recipe(Quantization(bits=BITS, group_size=64))
HELD_OUT = 1000

MEASURED: dict[str, Preset] = {
    "vanilla, one token a forward, blocks of 8": Vanilla(block_size=8),
    "vanilla, one token a forward, blocks of 32": Vanilla(),
    "fast-dllm, dual cache, 0.9": FastDLLM(),
    "d3llm, delayed cache, 0.5": D3LLM(),
    "d3mlx, needed rows, 0.5": D3MLX(),
}

COLUMNS = ["decoder", "exact answers", "tokens per forward", "rows per token"]

CARD = """---
library_name: mlx
pipeline_tag: text-generation
tags:
- mlx
- diffusion
license: mit
---

# {title}

A masked diffusion language model of {parameters:.1f} million parameters in LLaDA's architecture. It solves arithmetic
word problems of one to four steps, with numbers up to 200, in the wording it was trained on, and nothing else: it is
here so that every decoder can be seen, tested and measured without a download.

{origin}
The numbers of a held-out problem never occur together in training. Weights of {bits} bits.

{count} held-out problems, {canvas} new tokens:

{figures}
"""


def save_floats(folder: Path, model: nn.Module, tokenizer: Any, config: dict[str, Any]) -> None:
    """Write a checkpoint as the converter reads it."""
    save_model(folder, model)
    save_config(config, folder / "config.json")
    ends = [config["eos_token_id"], tokenizer.convert_tokens_to_ids(TURN)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    tokenizer.save_pretrained(folder)


def float_checkpoint(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and config.json of a checkpoint, quantized or not, as `save_floats` takes them."""
    checkpoint = open_checkpoint(folder)
    config = {name: value for name, value in checkpoint.config.items() if not name.startswith("quantization")}
    return in_float32(lazy_model(checkpoint)), load_tokenizer(checkpoint), config


def measure(model: Any, tokenizer: Any, decoder: Preset, count: int, questions: int) -> Score:
    """Solve the first `count` held-out problems, so many at once."""
    subject = Subject(model, tokenizer)
    held_out = Embedded(TaskOptions(), "llada", questions=questions)
    return score(list(track(solve(subject, held_out, decoder, range(count)), "solving", total=count)))


def figures(scores: dict[str, Score]) -> list[list[str]]:
    return [
        [name, f"{found.accuracy:.1%}", f"{found.tokens_per_forward:.2f}", f"{found.rows_per_token:.1f}"]
        for name, found in scores.items()
    ]


def card(title: str, origin: str, scores: dict[str, Score], config: dict[str, Any], count: int) -> str:
    """The model card; `origin` says how the model was built."""
    skeleton = llada.Model(llada.ModelArgs.from_dict(config))
    parameters = sum(value.size for _, value in tree_flatten(skeleton.parameters())) / 1e6
    facts = {"parameters": parameters, "bits": BITS, "count": count, "canvas": config["max_new_tokens"]}
    return CARD.format(title=title, origin=origin, figures=table(COLUMNS, figures(scores)), **facts)


def show(scores: dict[str, Score]) -> None:
    shown = Table(*COLUMNS)
    for row in figures(scores):
        shown.add_row(*row)
    Console().print(shown)


def refuse_foreign(out: Path) -> None:
    """Raise ConfigError if `out` holds anything but a model, which a finished one would replace."""
    if holds_files(out) and not (out / "config.json").is_file():
        raise ConfigError(f"{out} holds other files than a model; choose an empty or a new folder for --out.")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `out` once it is whole."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def publish(floats: Path, out: Path, title: str, origin: str, problems: int, questions: int = 1) -> None:
    """Convert a checkpoint in floats, measure it, write its card; `out`, replaced if it exists, appears whole.

    questions: problems that are asked at once.
    """
    made = floats.with_name(f"{floats.name}-{BITS}bit")
    shutil.rmtree(made, ignore_errors=True)
    convert(floats, made, RECIPE)
    scores = {name: measure(*load(made), decoder, problems, questions) for name, decoder in MEASURED.items()}
    config = json.loads((floats / "config.json").read_text())
    (made / "README.md").write_text(card(title, origin, scores, config, problems))
    with replacing(out) as partial:
        shutil.copytree(made, partial)
    show(scores)
