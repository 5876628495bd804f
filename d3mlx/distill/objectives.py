"""The objectives of `d3mlx distill`: trajectory distillation (d3LLM), and plain masked-diffusion training (LLaDA)."""

from __future__ import annotations

from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from d3mlx.distill.config import DistillConfig
from d3mlx.distill.examples import Example, Order, pad
from d3mlx.distill.losses import Labeled, LossRows, Terms, d3llm_loss, loss_rows, plain_loss
from d3mlx.distill.masking import Generator, Noisy, Sequence, block_size, hide, lowest_ratio, noisy_pair
from d3mlx.models import TrainableModel, traits_of

SMALLEST_TIME = 1e-3
"""Lower bound of the mask probability of plain training (LLaDA)."""


class Objective(Protocol):
    """The batches and the loss of a training. They depend only on the step, so a run can be resumed.

    A step is the sum of its passes. With several processes a pass is this process's share, and the loss of the step is
    the mean of the processes' losses.
    """

    def passes(self, step: int) -> list[Any]:
        """Return the forwards of a step."""
        ...

    def loss(self, model: Any, forward: Any) -> tuple[mx.array, Terms]:
        """Return the loss of a forward, and its terms for the log."""
        ...

    def figures(self, step: int) -> dict[str, float]:
        """Return the random settings of a step, for the log."""
        ...

    def origin(self, step: int) -> str:
        """Return the sources of the step's data, for an error."""
        ...


class OnExamples:
    """Base of both objectives: the micro-batches of a step, and this process's share of each."""

    def __init__(self, examples: list[Example], config: DistillConfig, model: TrainableModel, pad_id: int):
        self.examples, self.config, self.pad_id = examples, config, pad_id
        self.args, self.model, self.shift = model.args, model, model.shift
        self.order = Order(len(examples), config)
        self.steps = config.steps(len(examples))
        self.world = mx.distributed.init()

    def batch(self, step: int, micro: int) -> list[Example]:
        """Return the examples of a micro-batch."""
        return [self.examples[i] for i in self.order.batch(step, micro)]

    def sequences(self, step: int, micro: int) -> list[Sequence]:
        """Return the padded sequences of a micro-batch."""
        return pad(self.batch(step, micro), self.config, self.model, self.pad_id)

    def share(self, items: list[Any]) -> list[Any]:
        """Return this process's part of a micro-batch, which is the same in all processes."""
        return items[self.world.rank() :: self.world.size()]

    def origin(self, step: int) -> str:
        """Return file and row of the first examples of a step."""
        micros = range(self.config.grad_accumulation_steps)
        sources = [example.source for micro in micros for example in self.batch(step, micro)]
        text = "; ".join(dict.fromkeys(sources[:4]))
        return f"{text} and {len(sources) - 4} more" if len(sources) > 4 else text

    @property
    def scale(self) -> float:
        """Return the factor of the loss of a micro-batch."""
        return 1 / self.config.grad_accumulation_steps


class Distillation(OnExamples):
    """d3LLM's pseudo-trajectory distillation: see `masking` and `losses`."""

    def ratio(self, step: int, draws: Generator) -> float:
        """Draw the mask ratio of a micro-batch."""
        masking = self.config.masking
        return draws.uniform(lowest_ratio(masking, step, self.steps), masking.highest)

    def size(self, step: int) -> int:
        """Return the block size of a step."""
        return block_size(self.config.block_sizes, self.order.epoch(step))

    def passes(self, step: int) -> list[LossRows]:
        """Return the forwards of a step."""
        out = []
        for micro in range(self.config.grad_accumulation_steps):
            draws = Generator(self.config.seed, step, micro, 2)
            ratio, size = self.ratio(step, draws), self.size(step)
            sequences = self.sequences(step, micro)
            mask_id, to_padding = self.args.mask_token_id, traits_of(self.model.family).counts_padding
            pairs = [noisy_pair(s, self.config.masking, size, ratio, draws, mask_id, to_padding) for s in sequences]
            for part, name in enumerate(("", "_rev") if self.config.complementary else ("",)):
                batch = [(pair[part], sequence.ids) for pair, sequence in zip(pairs, sequences, strict=True)]
                out.append(self.rows(batch, name))
        return out

    def rows(self, batch: list[Labeled], name: str) -> LossRows:
        """Return this process's part of a forward; `name` is the suffix of its terms."""
        total = float(sum(noisy.lost.sum() for noisy, _ in batch))
        mine = self.share(batch)
        return loss_rows(mine, self.shift, [1.0] * len(mine), total, name, self.scale)

    def loss(self, model: TrainableModel, forward: LossRows) -> tuple[mx.array, Terms]:
        """Return the loss of a forward, and its terms for the log."""
        config = self.config.loss
        weight = config.entropy_weight if not forward.name or config.complement_entropy else 0.0
        return d3llm_loss(model, forward, config, weight)

    def figures(self, step: int) -> dict[str, float]:
        """Return mask ratio, block size and epoch of a step."""
        ratios = [
            self.ratio(step, Generator(self.config.seed, step, micro, 2))
            for micro in range(self.config.grad_accumulation_steps)
        ]
        return {"mask_ratio": float(np.mean(ratios)), "block_size": self.size(step), "epoch": self.order.epoch(step)}


class PlainTraining(OnExamples):
    """LLaDA's supervised fine-tuning (LLaDA, algorithm 2 and appendix B.1).

    Each token of an answer is hidden with probability t ~ U(0, 1), and its loss has weight 1 / t. The losses of a
    sequence are divided by the length of its answer with padding.
    """

    def times(self, step: int, micro: int) -> list[float]:
        """Return the mask probability t of each sequence."""
        draws = Generator(self.config.seed, step, micro, 3)
        return [(1 - SMALLEST_TIME) * draws.uniform(0.0, 1.0) + SMALLEST_TIME for _ in range(self.config.batch_size)]

    def passes(self, step: int) -> list[LossRows]:
        """Return the forwards of a step."""
        out = []
        for micro in range(self.config.grad_accumulation_steps):
            draws = Generator(self.config.seed, step, micro, 4)
            batch: list[Labeled] = []
            weights = []
            for sequence, time in zip(self.sequences(step, micro), self.times(step, micro), strict=True):
                batch.append((self.hidden(sequence, time, draws), sequence.ids))
                weights.append(1 / (time * (len(sequence.ids) - sequence.prompt)))
            mine, weights = self.share(batch), self.share(weights)
            out.append(loss_rows(mine, self.shift, weights, float(len(batch)), "", self.scale))
        return out

    def hidden(self, sequence: Sequence, time: float, draws: Generator) -> Noisy:
        """Return a sequence with each token of the answer hidden with probability `time`."""
        start, end = sequence.prompt, len(sequence.ids)
        return hide(sequence, start, end, draws.uniforms(end - start) < np.float32(time), self.args.mask_token_id)

    def loss(self, model: TrainableModel, forward: LossRows) -> tuple[mx.array, Terms]:
        """Return the loss of a forward, and its terms for the log."""
        return plain_loss(model, forward)

    def figures(self, step: int) -> dict[str, float]:
        """Return mask ratio and epoch of a step."""
        times = [t for micro in range(self.config.grad_accumulation_steps) for t in self.times(step, micro)]
        return {"mask_ratio": float(np.mean(times)), "epoch": self.order.epoch(step)}


OBJECTIVES: dict[str, type[Distillation] | type[PlainTraining]] = {"d3llm": Distillation, "sft": PlainTraining}
