"""Run a task: every problem once per point, several at a time, each record written as it comes; a run that was cut off
goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from d3mlx.api import Generation, run_batch
from d3mlx.batch import MAX_BATCH
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.errors import D3Error
from d3mlx.evaluate.records import Folder, Record, Setting
from d3mlx.evaluate.results import OperatingPoint
from d3mlx.evaluate.tasks import Task
from d3mlx.models import DiffusionModel


@dataclass(frozen=True)
class EvalModel:
    """The model that is evaluated and its options, apart from the decoder.

    max_tokens: None takes the model's own length of an answer. batch_size: problems that share forwards, at most; an
    answer does not depend on it, except in a near tie (see `engine.step`).
    """

    model: DiffusionModel
    tokenizer: Any
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    batch_size: int = MAX_BATCH

    @property
    def new_tokens(self) -> int:
        return self.max_tokens or self.model.args.max_new_tokens

    def seed_of(self, index: int) -> int:
        return (self.sampling.seed + index) % 2**32


def begin(subject: EvalModel, task: Task, preset: Preset, index: int) -> Generation:
    """Ask one problem. Its noise has a seed of its own, so problems are independent draws.

    The preset is built here, so that nothing of it depends on what was measured on this machine.
    Raises D3Error, naming the problem, if it cannot be asked.
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
    """Return the record of one problem, asked alone. Raises D3Error as `begin` does."""
    (record,) = solve(subject, task, preset, [index])
    return record


def judged(subject: EvalModel, task: Task, index: int, generation: Generation) -> Record:
    """Return the record of a problem whose generation is done."""
    return Record(
        index=index,
        **asdict(task.score(index, generation.text)),
        seed=subject.seed_of(index),
        prompt_tokens=generation.canvas.prompt_length,
        **(asdict(generation.stats) | {"tokens": counted(generation, generation.stats.tokens, subject.tokenizer)}),
        text=generation.text,
    )


def counted(generation: Generation, committed: int, tokenizer: Any) -> int:
    """Return the number of tokens of the text that counts. Those after a stop text do not, as in the published
    evaluations, which tokenize the cut text again."""
    if generation.stream is None or not generation.stream.done:
        return committed
    return min(committed, len(tokenizer.encode(generation.text, add_special_tokens=False)))


def solve(subject: EvalModel, task: Task, preset: Preset, indices: Iterable[int]) -> Iterator[Record]:
    """Yield a record per problem as it is solved, several problems at a time, so not in order; nothing is written.

    Raises D3Error as `begin` does, after the problems before that one are solved.
    """
    left = iter(indices)
    indices_of: dict[Generation, int] = {}

    def feed() -> Generation | None:
        index = next(left, None)
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
    """Return the first `count` problems of a task under one setting: those in the folder, and the others solved now.

    on_record gets every record, first those in the folder.
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
