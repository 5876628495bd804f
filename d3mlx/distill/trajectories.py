"""Trajectories: the order in which a teacher commits the tokens of an answer, recorded while it decodes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d3mlx.batch import MAX_BATCH
from d3mlx.decoding.acceptance import Entropy, Quota
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.options import Options, option
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.schedule import BLOCK_SIZE, SequentialBlocks
from d3mlx.decoding.selective import Selective
from d3mlx.distill.config import check_trainable
from d3mlx.errors import ConfigError
from d3mlx.evaluate.equivalence import last_boxed
from d3mlx.generation import Generation, run_batch
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.models.traits import Traits
from d3mlx.request import Step

Ints = NDArray[np.int32]
TEMPERATURES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Temperatures of the attempts at a question with a known answer."""

MOST_STEPS = 2**15 - 1
"""Limit of the steps of a decode: ranks are 16-bit numbers."""


@dataclass(frozen=True)
class Trajectory:
    """A decoded answer and the order of its commits.

    row: index of the prompt in the source. prompt: int32 [P], ids. tokens: int32 [N], ids after the prompt. ranks:
    int16 [N], the step that committed each position, or that filled it after the end of the answer. correct: None if
    unknown. attempts: number of decodes of the question.
    """

    row: int
    prompt: Ints
    tokens: Ints
    ranks: NDArray[np.int16]
    correct: bool | None = None
    attempts: int = 1

    @property
    def states(self) -> int:
        """Return the number of steps."""
        return int(self.ranks.max()) + 1 if len(self.ranks) else 0

    def step(self, index: int) -> tuple[Ints, Ints]:
        """Return the positions that step `index` committed or filled, and their tokens, both int32 [n].

        Positions count from the end of the prompt and ascend.
        """
        positions = np.flatnonzero(self.ranks == index).astype(np.int32)
        return positions, self.tokens[positions]


@dataclass(frozen=True)
class Teacher(Options):
    """Decoder that commits one token per forward in sequential blocks.

    The token is the most likely for LLaDA, and the one with the lowest entropy for Dream.
    """

    block_size: int | None = option("Tokens per block of the teacher's decode.", 32, BLOCK_SIZE, common=True)
    cache: Literal["none", "selective"] | None = option(
        "Use no KV cache (none), as published, or the selective cache, which is faster and changes a few answers.",
        "none",
        common=True,
    )

    def check_attention(self, traits: Traits) -> None:
        check_trainable(traits)

    def build(self, family: str) -> Decoder:
        """Return the decoder for a model family."""
        traits = traits_of(family)
        options = self.filled(traits)
        cache = NoCache() if options.cache == "none" else Selective().build(family).cache
        # Entropy is never below 0, so no token passes this rule. Every step commits only the token that the rule
        # forces: the one with the lowest entropy of the block.
        lowest = Entropy(0.0, inclusive=False, best_always=False, force_likeliest=False)
        rule = Quota("confidence") if traits.sampler == "quota" else lowest
        return Decoder(SequentialBlocks(options.block_size), rule, cache)


@dataclass(frozen=True)
class RecordConfig:
    """Settings of a recording. Raises ConfigError.

    max_tokens: length of the answer. teacher: the decoder. early_stop: fill the positions after the first end token
    instead of decoding them. check: compare answers with the correct ones, and repeat wrong answers at higher
    temperatures.
    """

    max_tokens: int = 256
    teacher: Teacher = Teacher()
    early_stop: bool = False
    check: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= MOST_STEPS:
            raise ConfigError(f"max-tokens must be from 1 to {MOST_STEPS:,}, not {self.max_tokens}.")

    def settings(self, family: str) -> dict[str, Any]:
        """Return all settings that change answers, with the family's defaults, for the settings of a folder."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "teacher"}
        return own | vars(self.teacher.filled(traits_of(family)))


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, the row of its source, and its correct answer if it is known."""

    row: int
    prompt: list[int]
    answer: str | None = None


@dataclass
class Attempt:
    """One decode of a question. ranks: int16 [N], the step that committed or filled each position; -1 before it."""

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
        """Record the positions of a step."""
        first = self.generation.canvas.prompt_length
        self.ranks[step.positions - first] = step.index
        self.ranks[step.filled - first] = step.index

    def trajectory(self, check: bool) -> Trajectory:
        """Return the trajectory of the finished decode. With `check` and a known answer, `correct` is set."""
        canvas, answer = self.generation.canvas, self.question.answer
        correct = is_correct(self.generation.text, answer) if check and answer is not None else None
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
    """Decode the questions, `batch_size` at a time, and yield each trajectory when it is complete, so in any order.

    With `config.check`, a question with a wrong answer is decoded up to five times. The last answer is yielded even if
    it is wrong. A trajectory does not depend on the batch size, except in a near tie (see `engine.step`).
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
    """Return the answer of a solution: the last box, or the number after "answer is", or the last number."""
    answer = last_boxed(text) or after_words(text)
    if answer is None and (numbers := NUMBER.findall(text)):
        answer = numbers[-1]
    return None if answer is None else normalized(answer)


def after_words(text: str) -> str | None:
    """Return the number after the last "answer is" in the same sentence; after its equal sign if there is one."""
    _, *parts = WORDS.split(text)
    if not parts:
        return None
    sentence = re.split(r"\.(?!\d)|\n", parts[-1])[0]
    number = NUMBER.search(sentence.rsplit("=", 1)[-1])
    return number.group() if number else None


def normalized(answer: str) -> str:
    """Return an answer in lower case without commas, dollar signs, spaces, final full stop and extra zeros."""
    plain = re.sub(r"[,$\s]", "", answer.lower()).rstrip(".")
    plain = re.sub(r"^(-?)0+(?=\d)", r"\1", plain)
    return plain.rstrip("0").rstrip(".") if re.fullmatch(r"-?\d+\.\d+", plain) else plain


def is_correct(text: str, answer: str) -> bool:
    """Return whether a solution has the correct answer."""
    return stated_answer(text) == normalized(last_boxed(answer) or answer)
