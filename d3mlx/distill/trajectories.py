"""Trajectories: the order in which a teacher commits an answer, recorded from the Steps of its decode."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from d3mlx.api import Generation
from d3mlx.decoding.acceptance import Entropy
from d3mlx.decoding.presets import Decoder, Vanilla, check_choice
from d3mlx.decoding.rows import Full, Needed
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.schedule import SequentialBlocks
from d3mlx.engine import Step
from d3mlx.evaluate.answers import last_boxed
from d3mlx.models import DiffusionModel

Ints = NDArray[np.int32]
TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Of the attempts at a question whose answer can be checked."""


@dataclass(frozen=True)
class Trajectory:
    """A decode, without its logits.

    prompt [P] and tokens [N] are ids; ranks [N] int16 is the step at which each position got its final token: was
    committed, or filled because the answer had ended. row: which prompt of the source it answers.
    """

    row: int
    prompt: Ints
    tokens: Ints
    ranks: NDArray[np.int16]
    correct: bool | None = None
    attempts: int = 1

    @property
    def states(self) -> int:
        return int(self.ranks.max()) + 1 if len(self.ranks) else 0

    def step(self, index: int) -> tuple[Ints, Ints]:
        """Positions that step `index` committed or filled, ascending from the end of the prompt, and their tokens."""
        positions = np.flatnonzero(self.ranks == index).astype(np.int32)
        return positions, self.tokens[positions]


Rows = Literal["full", "needed"]


@dataclass(frozen=True)
class Teacher:
    """One token per forward, block after block: the likeliest for LLaDA, the one of lowest entropy for Dream.

    rows: full as published, or needed, the few that a step cannot do without.
    """

    block_size: int = 32
    rows: Rows = "full"

    def __post_init__(self) -> None:
        check_choice("The teacher's rows", self.rows, get_args(Rows))

    def build(self, family: str) -> Decoder:
        rows = Full() if self.rows == "full" else Needed(source=int(family == "dream"))
        if family == "llada":
            return replace(Vanilla(block_size=self.block_size).build(family), rows=rows)
        # No entropy is below 0, so every step commits what progress is forced with: the lowest entropy of the block.
        rule = Entropy(0.0, inclusive=False, best_always=False, force_likeliest=False)
        return Decoder(SequentialBlocks(self.block_size), rule, rows)


@dataclass(frozen=True)
class RecordConfig:
    """How answers are recorded.

    max_tokens: length of the canvas. block_size, rows: see `Teacher`. early_stop: fill what follows the first end token
    instead of decoding it. check: compare answers with the given ones and try again at rising temperatures.
    """

    max_tokens: int = 256
    block_size: int = 32
    rows: Rows = "full"
    early_stop: bool = False
    check: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, the row of its source, and its right answer if one is known."""

    row: int
    prompt: list[int]
    answer: str | None = None


def trajectory_of(row: int, prompt: list[int], steps: Iterable[Step], tokens: Ints) -> Trajectory:
    """What the Steps of a finished decode say; `tokens` are the canvas's after the prompt."""
    ranks = np.full(len(tokens), -1, np.int16)
    for step in steps:
        ranks[step.positions] = step.index
        ranks[step.filled] = step.index
    return Trajectory(row, np.asarray(prompt, np.int32), np.asarray(tokens, np.int32), ranks)


def record(model: DiffusionModel, tokenizer: Any, question: Question, config: RecordConfig) -> Trajectory:
    """Decode one answer; with `check`, up to five until one is right, the last being kept in any case."""
    found: Trajectory | None = None
    teacher = Teacher(config.block_size, config.rows)
    temperatures = TEMPERATURES if config.check and question.answer is not None else TEMPERATURES[:1]
    for attempt, temperature in enumerate(temperatures):
        seed = int(np.random.SeedSequence([config.seed, question.row, attempt]).generate_state(1)[0])
        run = Generation(
            model,
            tokenizer,
            question.prompt,
            teacher,
            max_tokens=config.max_tokens,
            sampling=Sampling(temperature, seed=seed),
            early_stop=config.early_stop,
        )
        steps = list(run)
        found = trajectory_of(question.row, question.prompt, steps, run.canvas.tokens[run.canvas.prompt_length :])
        if config.check and question.answer is not None:
            found = replace(found, correct=is_right(run.text, question.answer), attempts=attempt + 1)
        if found.correct is not False:
            break
    assert found is not None
    return found


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
WORDS = re.compile(r"answer is", re.IGNORECASE)


def stated_answer(text: str) -> str | None:
    """The answer that a solution states: the last box, else what "answer is" says, else the last number."""
    found = last_boxed(text) or after_words(text)
    if found is None and (numbers := NUMBER.findall(text)):
        found = numbers[-1]
    return None if found is None else normal(found)


def after_words(text: str) -> str | None:
    """The number of the sentence that "answer is" begins last, behind its equal sign if it has one."""
    _, *said = WORDS.split(text)
    if not said:
        return None
    sentence = re.split(r"\.(?!\d)|\n", said[-1])[0]
    found = NUMBER.search(sentence.rsplit("=", 1)[-1])
    return found.group() if found else None


def normal(answer: str) -> str:
    """Lower case without commas, dollar signs and spaces; a final full stop goes too, and zeros that say nothing."""
    plain = re.sub(r"[,$\s]", "", answer.lower()).rstrip(".")
    plain = re.sub(r"^(-?)0+(?=\d)", r"\1", plain)
    return plain.rstrip("0").rstrip(".") if re.fullmatch(r"-?\d+\.\d+", plain) else plain


def is_right(text: str, answer: str) -> bool:
    return stated_answer(text) == normal(last_boxed(answer) or answer)
