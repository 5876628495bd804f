"""Training data as token ids, from trajectories or from prompts with answers, and the examples of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3mlx.data.conversations import messages_of
from d3mlx.data.records import read_rows
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.masking import ALWAYS_SHOWN, NEVER_SHOWN, Ints, Sequence
from d3mlx.distill.prompts import (
    EMBEDDED,
    EMBEDDED_ROWS,
    embedded_rows,
    ids_of,
    prompt_of,
    vocabulary_fingerprint,
)
from d3mlx.distill.trajectory_store import read_settings, read_store
from d3mlx.ends import end_ids, turn_end
from d3mlx.errors import ConfigError, DataError
from d3mlx.models import DiffusionModel, traits_of


@dataclass(frozen=True)
class Example:
    """A training example.

    ids: int32 [L], prompt and answer with its end token. prompt: its number of tokens. source: file and row, for
    errors. ranks: int32, the step in which the teacher committed each position after the prompt; None without a
    trajectory.
    """

    ids: Ints
    prompt: int
    source: str
    ranks: Ints | None = None


def load_examples(config: DistillConfig, model: DiffusionModel, tokenizer: Any) -> list[Example]:
    """Return the training examples.

    config.data: a folder of trajectories, a JSONL or parquet file, a folder with train.jsonl, or `embedded`.

    Raises DataError that names file and row if a row cannot be used, and ConfigError if the data does not fit the
    objective.
    """
    path = Path(config.data)
    if config.data == EMBEDDED or path.is_file() or (path / "train.jsonl").is_file():
        if config.only_correct:
            raise ConfigError(f"Cannot use --only-correct: {config.data} does not say which answers are correct.")
        if config.objective == "d3llm" and not config.random_masks:
            raise ConfigError(
                f"{config.data} contains no trajectories. Use --objective sft, or record some with d3mlx trajectories."
            )
        unchecked = answered(config.data, model, tokenizer)
    else:
        unchecked = recorded(path, config.only_correct, model, tokenizer)
    examples = [checked(example, config, model) for example in unchecked]
    if not examples:
        raise DataError(f"{config.data} contains no examples to train on.")
    return examples


def recorded(folder: Path, only_correct: bool, model: DiffusionModel, tokenizer: Any) -> Iterator[Example]:
    """Yield the trajectories of a folder, each cut after its first end token. Raises DataError, ConfigError."""
    if not folder.is_dir():
        raise DataError(f"{folder} is neither a file nor a folder of trajectories.")
    settings = read_settings(folder)
    if settings["tokenizer"] != vocabulary_fingerprint(tokenizer) or settings["mask_id"] != model.args.mask_token_id:
        raise DataError(f"The trajectories in {folder} were recorded with a different tokenizer.")
    ends = end_ids(model, tokenizer)
    judged = False
    # Sort by prompt, because prompts that are decoded together are not written in a fixed order.
    for trajectory in sorted(read_store(folder), key=lambda trajectory: trajectory.row):
        judged = judged or trajectory.correct is not None
        if only_correct and trajectory.correct is not True:
            continue
        stops = np.flatnonzero(np.isin(trajectory.tokens, ends))
        answer = trajectory.tokens[: stops[0] + 1] if len(stops) else np.append(trajectory.tokens, np.int32(ends[0]))
        ids = np.concatenate([trajectory.prompt, answer]).astype(np.int32)
        source = f"{folder}, record {trajectory.row}"
        yield Example(ids, len(trajectory.prompt), source, trajectory.ranks.astype(np.int32))
    if only_correct and not judged:
        raise ConfigError(
            f"{folder} does not say which answers are correct. Leave out --only-correct, or record with --check."
        )


def answered(data: str, model: DiffusionModel, tokenizer: Any) -> Iterator[Example]:
    """Yield an example for each row with a prompt and a completion, or with chat messages. Raises DataError."""
    path = Path(data)
    if data == EMBEDDED:
        rows = embedded_rows(EMBEDDED_ROWS)
    else:
        rows = read_rows(path / "train.jsonl" if path.is_dir() else path)
    end = turn_end(model, tokenizer)
    for source, row in rows:
        answer: Any
        if "messages" in row:
            *context, last = messages_of(source, row["messages"])
            if last["role"] != "assistant" or not context:
                raise DataError(f"{source}: the messages must end with an answer of the assistant.")
            prompt, answer = ids_of(source, tokenizer, context), last["content"]
        else:
            prompt, answer = ids_of(source, tokenizer, prompt_of(source, row, raw=False)), row.get("completion")
        if not isinstance(answer, str) or not answer.strip():
            raise DataError(f"{source}: the record has no completion. Add one as text.")
        ids = [*prompt, *tokenizer.encode(answer, add_special_tokens=False), end]
        yield Example(np.array(ids, np.int32), len(prompt), source)


def checked(example: Example, config: DistillConfig, model: DiffusionModel) -> Example:
    """Return the example, cut to max_length. Raises DataError if it cannot be used."""
    width, mask_id = model.args.logit_width, model.args.mask_token_id
    if example.prompt >= config.max_length:
        raise DataError(
            f"{example.source}: the prompt has {example.prompt} tokens and leaves no room for an answer. Increase "
            f"max-length, which is {config.max_length}."
        )
    if example.ids.min() < 0 or example.ids.max() >= width:
        raise DataError(f"{example.source}: an id is not in 0 to {width - 1}. The record has ids of another tokenizer.")
    if (example.ids == mask_id).any():
        raise DataError(f"{example.source}: the record contains the mask token (id {mask_id}). Remove it.")
    if config.max_length > model.args.context:
        raise DataError(
            f"max-length must be at most the model's context of {model.args.context}, not {config.max_length}."
        )
    return Example(example.ids[: config.max_length], example.prompt, example.source, example.ranks)


def content_hash(examples: list[Example]) -> str:
    """Return a fingerprint of the training data. Its path does not matter."""
    digest = hashlib.sha256()
    for example in examples:
        ranks = b"" if example.ranks is None else example.ranks.tobytes()
        digest.update(f"{example.prompt} {len(example.ids)} {len(ranks)} ".encode())
        digest.update(example.ids.tobytes() + ranks)
    return digest.hexdigest()[:16]


class Order:
    """The order of examples: a new permutation for each epoch. A batch can extend into the next epoch."""

    def __init__(self, rows: int, config: DistillConfig):
        self.rows, self.config = rows, config

    def epoch(self, step: int) -> float:
        """Return the fractional number of epochs before a step."""
        return step * self.config.batch_size * self.config.grad_accumulation_steps / self.rows

    def batch(self, step: int, micro: int) -> list[int]:
        """Return the indices of the examples in micro-batch `micro` of a step."""
        size = self.config.batch_size
        first = (step * self.config.grad_accumulation_steps + micro) * size
        return [self.row(number) for number in range(first, first + size)]

    def row(self, number: int) -> int:
        """Return the index of the example at position `number` of the run."""
        epoch, index = divmod(number, self.rows)
        return int(permutation(self.config.seed, epoch, self.rows)[index])


@lru_cache(2)
def permutation(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Return the order of the examples in an epoch: int64 [rows]."""
    return np.random.default_rng([seed, epoch, 1]).permutation(rows)


def pad(examples: list[Example], config: DistillConfig, model: DiffusionModel, pad_id: int) -> list[Sequence]:
    """Return sequences of equal length, padded with `pad_id`.

    Positions after the end of a trajectory count as hidden for LLaDA and as shown for Dream, as published.
    """
    length = config.max_length
    if config.response_length is not None:
        allowed = max(example.prompt for example in examples) + config.response_length
        length = min(max(len(example.ids) for example in examples), allowed)
    beyond = NEVER_SHOWN if traits_of(model.family).hides_padding else ALWAYS_SHOWN
    out = []
    for example in examples:
        ids = np.full(length, pad_id, np.int32)
        full = min(len(example.ids), length)
        ids[:full] = example.ids[:full]
        if example.ranks is None:
            out.append(Sequence(ids, example.prompt, full))
            continue
        order = np.full(length, beyond, np.int32)
        order[: example.prompt] = ALWAYS_SHOWN
        reached = example.ranks[: max(length - example.prompt, 0)]
        order[example.prompt : example.prompt + len(reached)] = reached
        out.append(Sequence(ids, example.prompt, full, order, int(example.ranks.max()) + 1))
    return out
