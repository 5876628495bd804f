"""Trajectories: the order in which a teacher commits an answer, recorded from the Steps of its decode."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d3mlx.api import Generation, run_batch
from d3mlx.batch import MAX_BATCH
from d3mlx.decoding.acceptance import Entropy, Quota
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.options import Options, option
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.schedule import BLOCK_SIZE, SequentialBlocks
from d3mlx.decoding.selective import Selective
from d3mlx.errors import ConfigError
from d3mlx.evaluate.equivalence import last_boxed
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.request import Step

Ints = NDArray[np.int32]
TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Of the attempts at a question whose answer can be checked."""


MOST_STEPS = 2**15 - 1
"""Most steps of a decode: ranks are 16-bit numbers."""


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


@dataclass(frozen=True)
class Teacher(Options):
    """One token per forward, block after block: the most likely for LLaDA, the one of lowest entropy for Dream."""

    block_size: int | None = option("Tokens in a block of the teacher's decode.", 32, BLOCK_SIZE, common=True)
    cache: Literal["none", "selective"] | None = option(
        "What a forward reads from the KV cache: nothing, as published; or what it cannot change, which is faster and "
        "changes a few answers.",
        "none",
        common=True,
    )

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        options = self.filled(traits)
        cache = NoCache() if options.cache == "none" else Selective().on_no_machine().build(family).cache
        # No entropy is below 0, so every step commits what progress is forced with: the lowest entropy of the block.
        lowest = Entropy(0.0, inclusive=False, best_always=False, force_likeliest=False)
        rule = Quota("confidence") if traits.sampler == "quota" else lowest
        return Decoder(SequentialBlocks(options.block_size), rule, cache)


@dataclass(frozen=True)
class RecordConfig:
    """How answers are recorded.

    max_tokens: length of the canvas. teacher: how it decodes. early_stop: fill what follows the first end token
    instead of decoding it. check: compare answers with the given ones and try again at rising temperatures.
    """

    max_tokens: int = 256
    teacher: Teacher = Teacher()
    early_stop: bool = False
    check: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= MOST_STEPS:
            raise ConfigError(f"max-tokens of a trajectory must be from 1 to {MOST_STEPS:,}, not {self.max_tokens}.")

    def settings(self, family: str) -> dict[str, Any]:
        """Return everything that the answers depend on, defaults written out, as a folder records it."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "teacher"}
        return own | vars(self.teacher.filled(traits_of(family)))


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, the row of its source, and its right answer if one is known."""

    row: int
    prompt: list[int]
    answer: str | None = None


@dataclass
class Attempt:
    """One decode of a question. ranks: int16 [N], the step that committed or filled each position, -1 before."""

    question: Question
    number: int
    generation: Generation
    ranks: NDArray[np.int16]

    @classmethod
    def begin(
        cls, model: DiffusionModel, tokenizer: Any, question: Question, config: RecordConfig, number: int
    ) -> Attempt:
        """Return attempt `number` at a question, with its own temperature and seed."""
        seed = int(np.random.SeedSequence([config.seed, question.row, number]).generate_state(1)[0])
        generation = Generation(
            model,
            tokenizer,
            question.prompt,
            config.teacher,
            max_tokens=config.max_tokens,
            sampling=Sampling(TEMPERATURES[number], seed=seed),
            early_stop=config.early_stop,
        )
        return cls(question, number, generation, np.full(config.max_tokens, -1, np.int16))

    def take(self, step: Step) -> None:
        first = self.generation.canvas.prompt_length
        self.ranks[step.positions - first] = step.index
        self.ranks[step.filled - first] = step.index

    def trajectory(self, check: bool) -> Trajectory:
        """Return the finished decode; with `check`, whether its answer is the given one, if there is one."""
        canvas, answer = self.generation.canvas, self.question.answer
        correct = is_right(self.generation.text, answer) if check and answer is not None else None
        prompt, tokens = np.split(canvas.tokens, [canvas.prompt_length])
        attempts = self.number + 1 if correct is not None else 1
        return Trajectory(self.question.row, prompt, tokens, self.ranks, correct, attempts)


def record(
    model: DiffusionModel,
    tokenizer: Any,
    questions: Iterable[Question],
    config: RecordConfig,
    batch_size: int = MAX_BATCH,
) -> Iterator[Trajectory]:
    """Decode the questions, `batch_size` at a time, and yield each one's trajectory when it is done, so not in order.

    With `config.check` an answer that is wrong is tried again, up to five times in all; the last one is kept in any
    case. A trajectory does not depend on the batch size, except in a near tie (see `engine.step`).
    """
    waiting = deque((question, 0) for question in questions)
    running: dict[Generation, Attempt] = {}

    def feed() -> Generation | None:
        if not waiting:
            return None
        question, number = waiting.popleft()
        attempt = Attempt.begin(model, tokenizer, question, config, number)
        running[attempt.generation] = attempt
        return attempt.generation

    for generation, step in run_batch(model, feed, batch_size):
        running[generation].take(step)
        if generation.done:
            attempt = running.pop(generation)
            trajectory = attempt.trajectory(config.check)
            if trajectory.correct is False and attempt.number + 1 < len(TEMPERATURES):
                waiting.appendleft((attempt.question, attempt.number + 1))
            else:
                yield trajectory


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
WORDS = re.compile(r"answer is", re.IGNORECASE)


def stated_answer(text: str) -> str | None:
    """The answer that a solution states: the last box, else what "answer is" says, else the last number."""
    answer = last_boxed(text) or after_words(text)
    if answer is None and (numbers := NUMBER.findall(text)):
        answer = numbers[-1]
    return None if answer is None else normalized(answer)


def after_words(text: str) -> str | None:
    """The number of the sentence that "answer is" begins last, behind its equal sign if it has one."""
    _, *said = WORDS.split(text)
    if not said:
        return None
    sentence = re.split(r"\.(?!\d)|\n", said[-1])[0]
    number = NUMBER.search(sentence.rsplit("=", 1)[-1])
    return number.group() if number else None


def normalized(answer: str) -> str:
    """Lower case without commas, dollar signs and spaces; a final full stop goes too, and zeros that say nothing."""
    plain = re.sub(r"[,$\s]", "", answer.lower()).rstrip(".")
    plain = re.sub(r"^(-?)0+(?=\d)", r"\1", plain)
    return plain.rstrip("0").rstrip(".") if re.fullmatch(r"-?\d+\.\d+", plain) else plain


def is_right(text: str, answer: str) -> bool:
    return stated_answer(text) == normalized(last_boxed(answer) or answer)
