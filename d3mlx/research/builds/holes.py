"""Train the student further on holes: text that is missing in the middle of a solution, and where it ends.

    python -m d3mlx.research.builds.holes --out FOLDER [--student FOLDER] [--work FOLDER] [--resume]

A hole has more masks than text, so the model learns to put an end token after the text. Half of every batch keeps the
student as it is: there, its own probabilities are the targets.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import mlx.core as mx
import numpy as np
import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.data.problems import problem
from d3mlx.data.tokens import build_tokenizer
from d3mlx.distill.losses import Terms
from d3mlx.distill.optimizer import OptimizerConfig
from d3mlx.distill.trainer import TrainConfig, Trainer
from d3mlx.files import fingerprint
from d3mlx.models import DiffusionModel
from d3mlx.research.batches import END_WEIGHT, FAR_WEIGHT, POOL, Batch, Example, Source, stack
from d3mlx.research.builds.curriculum import Curriculum, Phase
from d3mlx.research.builds.shipped import HELD_OUT, check_out, display, finished, float_checkpoint, publish, working
from d3mlx.research.script import script
from d3mlx.research.supervised import Masked, mask_batch, masked_loss

STEPS = 1500
BATCH = 24
"""Sequences with holes per step, and as many for the old task."""

SIZES = (16, 32, 64)
"""Numbers of masks of a hole of free length, as `d3mlx infill` tries them."""

ANYWHERE, LOWEST_RATIO = 0.3, 0.4
"""Share of the batches with masks anywhere in the holes, and the lowest share of masks in them."""

NEXT_WEIGHT = 4.0
"""Loss weight of the token that a decoder can know next. That of other tokens is at most 1."""

OLD_TASK = Curriculum(recall_steps=0, phases=(Phase(until=10**9, operations=4, drills=0, blocks=0.6, worked=0.1),))
"""Batches on which the student must stay the same: block decoders, worked examples, and masks anywhere."""


class Holes:
    """Builder of batches with holes from a source of problems."""

    def __init__(self, source: Source):
        self.source = source
        self.pool: Callable[[int], list[list[Example]]] = lru_cache(4)(self.draw_pool)

    def batch(self, step: int) -> Batch:
        """Return solved problems of similar length, with one or two holes in each solution.

        In most batches every hole is visible from the left up to a random position, as decoders fill it. The token at
        this position, which may be the end, has the largest loss weight.
        """
        examples = self.pool(step // POOL)[step % POOL]
        longest = max(len(example.ids) for example in examples)
        ids, weights = stack(examples, longest, self.source.end, end_weight=0.0)
        rng = np.random.default_rng([self.source.seed, step])
        if rng.random() < ANYWHERE:
            return Batch(ids, weights, lowest_ratio=LOWEST_RATIO)
        for row in weights:
            edges = np.flatnonzero(np.diff(row > 0, prepend=False, append=False)).tolist()
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                following = start + rng.choice(np.flatnonzero(row[start:end] == 1))
                row[start:following], row[following + 1 : end] = 0.0, FAR_WEIGHT
                row[following] = NEXT_WEIGHT
        return Batch(ids, weights, lowest_ratio=1.0)

    def draw_pool(self, number: int) -> list[list[Example]]:
        """Return POOL batches. A quarter of their examples have no chat template."""
        rng = random.Random(f"holes/{self.source.seed}/{number}")
        size, count = self.source.size, POOL * self.source.size
        problems = [problem(i, "train", self.source.seed) for i in range(number * count, (number + 1) * count)]
        solved = self.source.examples(problems)
        for i in range(count // 4):
            texts = [problems[i].question, f" {problems[i].solution}"]
            question, solution = (encoded.ids for encoded in self.source.encode(texts))
            solved[i] = Example([*question, *solution], [], len(question))
        examples = sorted((self.with_holes(example, rng) for example in solved), key=lambda each: len(each.ids))
        batches = [examples[i : i + size] for i in range(0, count, size)]
        rng.shuffle(batches)
        return batches

    def with_holes(self, example: Example, rng: random.Random) -> Example:
        """Return the example with holes: their text, then end tokens. Only positions of holes have a weight."""
        ids, weights = list(example.ids[: example.prompt]), [0.0] * example.prompt
        # The last token ends the turn, or is the period of the solution.
        position, last = example.prompt, len(example.ids) - 1
        for left in reversed(range(rng.choice((1, 1, 1, 2)))):
            # Each further hole needs a token, and one before it.
            room = last - position - 2 * left
            length = min(rng.randint(1, rng.choice((12, 12, 30))), room)
            start = position + rng.randint(0, room - length)
            text, loss = self.hole(example.ids[start : start + length], rng)
            position, before = start + length + 1, example.ids[position:start]
            ids += [*before, *text, example.ids[position - 1]]
            weights += [*[0.0] * len(before), *loss, 0.0]
        return Example(ids + example.ids[position:], weights + [0.0] * (len(example.ids) - position), example.prompt)

    def hole(self, text: list[int], rng: random.Random) -> tuple[list[int], list[float]]:
        """Return the ids and loss weights of a hole. Some holes have no room for an end token, or not for all text."""
        fitting, kind = [size for size in SIZES if size > len(text)], rng.random()
        if kind < 0.1:
            return text, [1.0] * len(text)
        if len(text) > SIZES[0] and kind < 0.3:
            return text[: SIZES[0]], [1.0] * SIZES[0]
        slack = (fitting[0] if kind < 0.8 else rng.choice(fitting)) - len(text)
        return [*text, *[self.source.end] * slack], [1.0] * (len(text) + 1) + [END_WEIGHT] * (slack - 1)


@dataclass(frozen=True)
class Kept(Masked):
    """A pass whose targets are probabilities: log p, float32 [R, V], of the student before the training."""

    log_p: mx.array


@dataclass(frozen=True)
class WithHoles:
    """Objective of two passes per step: cross-entropy on holes, and distance to the first student on the old task."""

    holes: Callable[[int], Batch]
    old: Callable[[int], Batch]
    student: DiffusionModel
    mask_id: int
    seed: int = 0

    def passes(self, step: int) -> list[Masked]:
        rng = np.random.default_rng([self.seed, step])
        filled, kept = (mask_batch(source(step), self.mask_id, rng) for source in (self.holes, self.old))
        hidden = self.student.hidden(kept.ids)
        log_p = log_probabilities(self.student.logits(hidden.reshape(-1, hidden.shape[-1])[kept.rows]))
        return [filled, Kept(kept.ids, kept.rows, kept.targets, kept.weights, mx.stop_gradient(log_p))]

    def loss(self, model: DiffusionModel, masked: Masked) -> tuple[mx.array, Terms]:
        if not isinstance(masked, Kept):
            value = masked_loss(model, masked)
            return value, {"holes": value}
        hidden = model.hidden(masked.ids)
        log_q = log_probabilities(model.logits(hidden.reshape(-1, hidden.shape[-1])[masked.rows]))
        distance = (mx.exp(masked.log_p) * (masked.log_p - log_q)).sum(axis=-1)
        value = (distance * masked.weights).sum() / masked.weights.sum()
        return value, {"old": value}

    def figures(self, step: int) -> dict[str, float]:
        return {}

    def origin(self, step: int) -> str:
        return f"batch {step}"


def log_probabilities(logits: mx.array) -> mx.array:
    """Return log-probabilities [R, V] of logits [R, V]."""
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model. Replaces an existing model.")],
    student: Annotated[str, typer.Option(help="Folder of the student.")] = EMBEDDED,
    start: Annotated[
        str | None, typer.Option(help="Folder of the weights to begin with.", show_default="the student")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder of the checkpoint and the log.")] = Path("runs/holes"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the work folder.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = STEPS,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Train, quantize, measure and write the student."""
    check_out(out, work)
    source, old = Source(build_tokenizer(), BATCH, 0), Source(build_tokenizer(), BATCH, 2)
    plan = TrainConfig(steps, save_every=100, optimizer=OptimizerConfig(peak_rate=8e-4, warmup=100, average=0.99))
    model, tokenizer, config = float_checkpoint(Path(start or student))
    before, *_ = float_checkpoint(Path(student))
    objective = WithHoles(Holes(source).batch, lambda step: OLD_TASK.batch(old, step), before, config["mask_token_id"])
    with working(work, resume, {"student": fingerprint(student), "start": fingerprint(start), "steps": steps}):
        Trainer(model, objective, plan, work).run(resume=resume, watcher=display(plan))
        floats = finished(work, model, tokenizer, config)
    origin = (
        "The bundled teacher, distilled by `python -m d3mlx.research.builds.student`, then trained for "
        f"{steps} more steps\non holes by `python -m d3mlx.research.builds.holes`."
    )
    publish(floats, out, "d3mlx demonstration model: student", origin, problems)


if __name__ == "__main__":
    script(build)
