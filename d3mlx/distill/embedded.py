"""Builds the embedded model from a seed: data, tokenizer, training, quantization, evaluation, the package folder.

    python -m d3mlx.distill.embedded --out FOLDER [--work FOLDER] [--resume]

Six hours on two cores with a fast BLAS preloaded (README.md says how).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import numpy as np
import typer
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import save_config, save_model
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from d3mlx import D3LLM, FastDLLM, Vanilla, load
from d3mlx.convert import Quantization, Recipe, convert
from d3mlx.data.batches import CANVAS, Source
from d3mlx.data.tokens import CONTEXT, END, MASK, TURN, build_tokenizer
from d3mlx.decoding.presets import Preset
from d3mlx.distill.curriculum import Curriculum
from d3mlx.distill.objective import Supervised, mask_batch, masked_loss
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.evaluate.records import Score, score
from d3mlx.evaluate.run import Subject, solve
from d3mlx.evaluate.tasks import task
from d3mlx.models import llada

STEPS = 20500
BATCH = 48
WIDTH, LAYERS, HEADS, FF = 192, 4, 3, 512
LOGIT_MULTIPLE = 64
"""The vocabulary is padded to a multiple of the quantization group, as LLaDA's embedding_size allows."""

GROUP, BITS = 64, 8
HELD_OUT = 1000

MEASURED: dict[str, Preset] = {
    "vanilla, one token a forward, blocks of 8": Vanilla(block_size=8),
    "vanilla, one token a forward, blocks of 32": Vanilla(),
    "fast-dllm, dual cache, 0.9": FastDLLM(),
    "d3llm, delayed cache, 0.5": D3LLM(),
}


def config_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """config.json in the published field names."""
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


def new_model(config: dict[str, Any], seed: int) -> llada.Model:
    """Embeddings of deviation 0.5, linears of width^-0.5, residual outputs smaller by sqrt(2 layers)."""
    mx.random.seed(seed)
    model = llada.Model(llada.ModelArgs.from_dict(config))
    start: list[tuple[str, mx.array]] = []
    for name, value in tree_flatten(model.parameters()):
        if value.ndim < 2:
            continue
        scale = 0.5 if "embed" in name else value.shape[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            scale /= (2 * config["n_layers"]) ** 0.5
        start.append((name, scale * mx.random.normal(value.shape)))
    model.update(tree_unflatten(start))
    mx.eval(model.parameters())
    return model


def train(
    tokenizer: PreTrainedTokenizerFast, config: dict[str, Any], work: Path, seed: int, resume: bool
) -> llada.Model:
    """The trained model, its weights averaged."""
    model, source, curriculum = new_model(config, seed), Source(tokenizer, BATCH, seed), Curriculum()
    mask_id = config["mask_token_id"]
    held_back = [
        mask_batch(source.problems(i, split="validation"), mask_id, np.random.default_rng(i)) for i in range(8)
    ]

    def monitor(model: Any) -> dict[str, float]:
        return {"validation_loss": float(np.mean([masked_loss(model, batch).item() for batch in held_back]))}

    objective = Supervised(lambda step: curriculum.batch(source, step), mask_id, seed)
    plan = TrainConfig(steps=STEPS, seed=seed, save_every=250, monitor_every=500)
    Trainer(model, objective, plan, work).run(resume=resume, monitor=monitor)
    return model


def write_model(folder: Path, model: llada.Model, tokenizer: PreTrainedTokenizerFast, config: dict[str, Any]) -> Path:
    """The model in `folder` as the converter makes it from the trained floats, which go beside it."""
    floats = folder.with_name(f"{folder.name}-float32")
    for old in (folder, floats):
        shutil.rmtree(old, ignore_errors=True)
    save_model(floats, model)
    save_config(config, floats / "config.json")
    ends = [config["eos_token_id"], tokenizer.convert_tokens_to_ids(TURN)]
    (floats / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    tokenizer.save_pretrained(floats)
    return convert(floats, folder, Recipe(Quantization(bits=BITS, group_size=GROUP))).folder


def measure(model: Any, tokenizer: Any, decoder: Preset, count: int) -> Score:
    """Solve the first `count` held-out problems."""
    subject, held_out = Subject(model, tokenizer, max_tokens=CANVAS), task("embedded", "llada")
    return score(list(track(solve(subject, held_out, decoder, range(count)), "solving", total=count)))


CARD = """---
library_name: mlx
pipeline_tag: text-generation
tags:
- mlx
- diffusion
license: mit
---

# d3mlx demonstration model

A masked diffusion language model of {parameters:.1f} million parameters in LLaDA's architecture. It solves arithmetic
word problems of one to four steps, with numbers up to 200, in the wording it was trained on, and nothing else: it is
here so that every decoder can be seen, tested and measured without a download.

Built from seed {seed} by `python -m d3mlx.distill.embedded`: {steps} steps of {batch} generated problems, equations
and recall exercises; weights of {bits} bits. The numbers of a held-out problem never occur together in training.

{count} held-out problems, {canvas} new tokens:

| decoder | exact answers | tokens per forward | rows per token |
|---|---|---|---|
{rows}
"""


def card(scores: dict[str, Score], config: dict[str, Any], seed: int, count: int) -> str:
    rows = "\n".join(
        f"| {name} | {found.accuracy:.1%} | {found.tokens_per_forward:.2f} | {found.rows_per_token:.1f} |"
        for name, found in scores.items()
    )
    skeleton = llada.Model(llada.ModelArgs.from_dict(config))
    parameters = sum(value.size for _, value in tree_flatten(skeleton.parameters())) / 1e6
    facts = {"seed": seed, "steps": STEPS, "batch": BATCH, "bits": BITS, "count": count, "canvas": CANVAS}
    return CARD.format(parameters=parameters, rows=rows, **facts)


def show(scores: dict[str, Score], console: Console) -> None:
    table = Table("decoder", "exact answers", "tokens per forward", "rows per token")
    for name, found in scores.items():
        figures = f"{found.accuracy:.1%}", f"{found.tokens_per_forward:.2f}", f"{found.rows_per_token:.1f}"
        table.add_row(name, *figures)
    console.print(table)


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model; one that exists is replaced.")],
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint and the log.")] = Path("runs/embedded"),
    seed: Annotated[int, typer.Option(help="Fixes data, start weights and masks.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the work folder.")] = False,
    problems: Annotated[int, typer.Option(help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Train, quantize, measure and write the embedded model."""
    tokenizer = build_tokenizer()
    config = config_of(tokenizer)
    model = train(tokenizer, config, work, seed, resume)
    made = write_model(work / "model", model, tokenizer, config)
    scores = {name: measure(*load(made), decoder, problems) for name, decoder in MEASURED.items()}
    (made / "README.md").write_text(card(scores, config, seed, problems))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(made, partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    show(scores, Console())


if __name__ == "__main__":
    typer.run(build)
