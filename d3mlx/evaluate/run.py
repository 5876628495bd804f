"""The run of a task: every problem once per point, several at a time. An interrupted run can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from d3mlx.batch import MAX_BATCH
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.errors import D3Error
from d3mlx.evaluate.records import Folder, Record, Setting
from d3mlx.evaluate.results import OperatingPoint
from d3mlx.evaluate.tasks import Task
from d3mlx.generation import Generation, run_batch
from d3mlx.models import DiffusionModel


@dataclass(frozen=True)
class EvalModel:
    """The model to evaluate and its options, without the decoder.

    max_tokens: length of answers; None takes the model's default. batch_size: the largest number of problems per
    forward. It does not change an answer, except in a near tie (see `engine.step`).
    """

    model: DiffusionModel
    tokenizer: Any
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    batch_size: int = MAX_BATCH

    @property
    def new_tokens(self) -> int:
        """Return the length of answers in tokens."""
        return self.max_tokens or self.model.args.max_new_tokens

    def seed_of(self, index: int) -> int:
        """Return the seed of a problem's noise."""
        return (self.sampling.seed + index) % 2**32


def begin(subject: EvalModel, task: Task, preset: Preset, index: int) -> Generation:
    """Return the generation of one problem. Each problem has its own seed, so problems are independent draws.

    The preset is built here, so that no measurement of this machine changes it. Raises D3Error that names the problem
    if it cannot be decoded.
    """
    try:
        return Generation(
            subject.model,
            subject.tokenizer,
            task.ask(index).prompt(subject.tokenizer),
            preset.build(subject.model.family),
            max_tokens=subject.new_tokens,
            sampling=replace(subject.sampling, seed=subject.seed_of(index)),
            stop=task.stop,
        )
    except D3Error as error:
        raise type(error)(f"Problem {index} of {task.name}: {error}") from error


def attempt(subject: EvalModel, task: Task, preset: Preset, index: int) -> Record:
    """Return the record of one problem, decoded alone. Raises D3Error as `begin` does."""
    (record,) = solve(subject, task, preset, [index])
    return record


def judged(subject: EvalModel, task: Task, index: int, generation: Generation) -> Record:
    """Return the record of a problem with a finished generation."""
    return Record(
        index=index,
        **asdict(task.score(index, generation.text)),
        seed=subject.seed_of(index),
        prompt_tokens=generation.canvas.prompt_length,
        **(asdict(generation.stats) | {"tokens": counted(generation, generation.stats.tokens, subject.tokenizer)}),
        text=generation.text,
    )


def counted(generation: Generation, committed: int, tokenizer: Any) -> int:
    """Return the number of tokens without those after a stop text.

    After a stop text the cut text is tokenized again, as in the published evaluations.
    """
    if not generation.stopped:
        return committed
    return min(committed, len(tokenizer.encode(generation.text, add_special_tokens=False)))


def solve(subject: EvalModel, task: Task, preset: Preset, indices: Iterable[int]) -> Iterator[Record]:
    """Yield a record per problem when it is finished, so in any order. Several problems are decoded at a time.

    Raises D3Error as `begin` does, after the problems before the invalid one are finished.
    """
    remaining = iter(indices)
    indices_of: dict[Generation, int] = {}

    def feed() -> Generation | None:
        index = next(remaining, None)
        if index is None:
            return None
        generation = begin(subject, task, preset, index)
        indices_of[generation] = index
        return generation

    for generation, _ in run_batch(subject.model, feed, subject.batch_size):
        if generation.done:
            yield judged(subject, task, indices_of.pop(generation), generation)


def run_point(
    subject: EvalModel,
    task: Task,
    preset: Preset,
    folder: Folder,
    setting: Setting,
    count: int,
    on_record: Callable[[Record], None] = lambda record: None,
) -> OperatingPoint:
    """Return the point of the first `count` problems of a task. Problems without a record in the folder are solved.

    on_record receives every record, first those in the folder.
    """
    with folder.log(setting).opened() as log:
        records = {record.index: record for record in log.records if record.index < count}
        for index in sorted(records):
            on_record(records[index])
        missing = [index for index in range(count) if index not in records]
        for record in solve(subject, task, preset, missing):
            log.append(asdict(record))
            records[record.index] = record
            on_record(record)
    return OperatingPoint(setting, [records[index] for index in sorted(records)])
