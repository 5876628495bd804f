"""Build the autoregressive counterpart of the teacher: mlx-lm's llama of the same size, for the same problems.

    python -m d3mlx.research.builds.next_token --out FOLDER [--work FOLDER] [--resume]

It has the teacher's vocabulary, width, layers and heads. The teacher's layers are a llama's without the causal mask, so
training starts from the teacher's weights. The model learns the next token of responses. `NextToken` solves problems
with mlx-lm's own generation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import numpy as np
import typer
from mlx_lm import load, stream_generate
from mlx_lm.models import llama
from transformers import PreTrainedTokenizerFast

from d3mlx.checkpoints.loader import TEACHER
from d3mlx.data.stories.tokenizer import CONTEXT, build_tokenizer
from d3mlx.distill.losses import Terms
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.evaluate.records import Record, score
from d3mlx.evaluate.tasks import Task, task
from d3mlx.files import fingerprint
from d3mlx.prompt import encode
from d3mlx.research.batches import CANVAS, Batch, Source
from d3mlx.research.builds.shipped import (
    HELD_OUT,
    check_out,
    display,
    float_checkpoint,
    replacing,
    save_floats,
    working,
)
from d3mlx.research.builds.teacher import BATCH, FF, HEADS, LAYERS, WIDTH, config_of
from d3mlx.research.script import script
from d3mlx.research.supervised import Masked, mean_loss, on_rows

STEPS = 1000
"""Far fewer than the teacher's: its weights are the start, and every token of a response is a target."""


def llama_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the config.json of a llama of the teacher's sizes."""
    teacher = config_of(tokenizer)
    return {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FF,
        "num_attention_heads": HEADS,
        "rms_norm_eps": teacher["rms_norm_eps"],
        "vocab_size": teacher["embedding_size"],
        "max_position_embeddings": CONTEXT,
        "rope_theta": teacher["rope_theta"],
        "tie_word_embeddings": False,
        "eos_token_id": teacher["eos_token_id"],
    }


def next_tokens(batch: Batch) -> Masked:
    """Return a pass with a loss on every token of the responses and on their ends, at the position before each."""
    following, weights = np.roll(batch.ids, -1, axis=1), np.roll(batch.weights, -1, axis=1)
    with_loss = weights == 1
    with_loss[:, -1] = False
    return on_rows(batch.ids, np.flatnonzero(with_loss), following, weights)


@dataclass(frozen=True)
class NextTokenLoss:
    """Objective of next-token prediction on responses, with one batch per step."""

    source: Source

    def passes(self, step: int) -> list[Masked]:
        return [next_tokens(self.source.problems(step))]

    def loss(self, model: llama.Model, masked: Masked) -> tuple[mx.array, Terms]:
        return mean_loss(model.model(masked.ids).flatten(0, 1)[masked.rows], model.lm_head, masked), {}

    def figures(self, step: int) -> dict[str, float]:
        return {}

    def origin(self, step: int) -> str:
        return f"batch {step}"


@dataclass(frozen=True)
class NextToken:
    """Greedy decoding with mlx-lm: a call returns the record of the problem with that number."""

    model: Any
    tokenizer: Any
    task: Task

    @classmethod
    def of(cls, folder: Path) -> NextToken:
        model, tokenizer, *_ = load(str(folder))
        return cls(model, tokenizer, task("embedded", "llada"))

    def __call__(self, index: int) -> Record:
        prompt = encode(self.tokenizer, self.task.ask(index).prompt(self.tokenizer))
        pieces = list(stream_generate(self.model, self.tokenizer, prompt, max_tokens=CANVAS))
        text, tokens = "".join(piece.text for piece in pieces), pieces[-1].generation_tokens
        return Record(
            index=index,
            **asdict(self.task.score(index, text)),
            seed=0,
            prompt_tokens=len(prompt),
            tokens=tokens,
            forwards=tokens,
            rows=len(prompt) + tokens - 1,
            prefill_rows=len(prompt),
            text=text,
        )


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model. Replaces an existing model.")],
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint and the log.")] = Path("runs/next-token"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the work folder.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = STEPS,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Train, measure and write the autoregressive model."""
    check_out(out, work)
    tokenizer = build_tokenizer()
    config = llama_config(tokenizer)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    teacher, *_ = float_checkpoint(Path(TEACHER))
    model.update(teacher.parameters())
    plan = TrainConfig(steps, save_every=250)
    with working(work, resume, {"teacher": fingerprint(TEACHER), "steps": steps}):
        objective = NextTokenLoss(Source(tokenizer, BATCH, 0))
        Trainer(model, objective, plan, work).run(resume=resume, watcher=display(plan))
    with replacing(out) as folder:
        save_floats(folder, model, tokenizer, config)
    total = score(list(map(NextToken.of(out), range(problems))))
    typer.echo(f"{total.accuracy:.1%} of {problems} held-out problems")


if __name__ == "__main__":
    script(build)
