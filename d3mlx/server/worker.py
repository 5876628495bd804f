"""The worker of the server: one thread that owns the model. Requests join and leave its batch between steps.

Clients run in other threads. They read the `progress` of a `Job`, which the worker replaces after every step.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from d3mlx.batch import MAX_BATCH, Batcher
from d3mlx.cells import Cells
from d3mlx.document import Document
from d3mlx.errors import D3Error
from d3mlx.generation import FinishReason, Generation, decoder_for
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.prompt import Prompt, encode
from d3mlx.request import Request, Stats, Step
from d3mlx.server.prefixes import Prefixes


class QueueFullError(Exception):
    """The server is stopping, or has as many waiting requests as it may have."""


class ServerEndsError(D3Error):
    """The server ends before the answer is complete."""


@dataclass(frozen=True)
class Order:
    """A request of a client. options: keyword arguments of `Generation`."""

    prompt: Prompt | Document
    decoder: Any = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """The whole canvas after a step, with masks.

    text: with a glyph per mask. cells: for each group of characters its text, its entropy in nats, and the step that
    committed it; for consecutive masks their number, and whether they may commit now. blocks: start, end, number of
    masks, and whether it is full, of each active block.
    """

    text: str
    cells: list[tuple[str, float, int] | tuple[int, bool]]
    blocks: list[tuple[int, int, int, bool]]

    @classmethod
    def of(cls, cells: Cells, glyph: str = "░") -> Picture:
        """Return the picture of cells."""
        out: list[Any] = []
        text = ""
        for group in cells.groups():
            if group.cell is not None:
                shown = group.text or ""
                out.append((shown, round(group.cell.entropy, 4), group.cell.step))
                text += shown
                continue
            count = out.pop()[0] if out and out[-1][1:] == (group.active,) else 0
            out.append((count + 1, group.active))
            text += glyph
        blocks = cells.latest.blocks if cells.latest else ()
        return cls(text, out, [(block.start, block.end, cells.masks(block), block.full) for block in blocks])


@dataclass(frozen=True)
class Progress:
    """The part of a job that a client may read.

    text: the text so far, which only grows. picture: the canvas, for a job that is watched. finish_reason: None before
    the end. stopped_by: the stop text that ended the answer. error: the error that ended the job.
    """

    text: str = ""
    picture: Picture | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    stats: Stats = field(default_factory=Stats)
    finish_reason: FinishReason | None = None
    stopped_by: str | None = None
    error: Exception | None = None

    @property
    def over(self) -> bool:
        """Return whether nothing follows."""
        return self.finish_reason is not None or self.error is not None


class Job:
    """A request of a client and its progress.

    notify: called in the worker's thread after every change. watched: the progress has pictures.
    """

    def __init__(self, order: Order, notify: Callable[[], object], watched: bool = False):
        self.order, self.notify, self.watched = order, notify, watched
        self.progress = Progress()
        self.canceled = False

    def report(self, progress: Progress) -> None:
        """Replace the progress."""
        self.progress = progress
        self.notify()


@dataclass
class Totals:
    """Counts since the start of the worker. tokens, answers: of answers that ended, by finish reason or otherwise."""

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, steps: Iterable[Step]) -> None:
        """Count the Steps of one forward."""
        self.steps += 1
        for step in steps:
            self.rows += step.rows

    def end(self, how: str, tokens: int) -> None:
        """Count an answer that ended."""
        self.answers[how] += 1
        self.tokens += tokens


class Worker:
    """The thread that owns the model, its batch and its queue."""

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Any,
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = 64,
        prefix_bytes: int = 1 << 30,
    ):
        """Make a worker without a running thread.

        max_batch: requests in one forward. max_waiting: requests in the queue. prefix_bytes: memory for the caches of
        earlier requests, which only a block-causal model can reuse.
        """
        self.model, self.tokenizer, self.max_waiting = model, tokenizer, max_waiting
        self.batcher = Batcher(model, max_batch)
        self.prefixes = Prefixes(prefix_bytes) if traits_of(model.family).attention == "block-causal" else None
        self.changed = threading.Condition()
        self.waiting: deque[Job] = deque()
        self.suspects: deque[Job] = deque()
        self.running: dict[Request, tuple[Job, Generation, Cells | None]] = {}
        self.stopping = self.aborting = False
        self.totals = Totals()
        self.thread = threading.Thread(target=self.run, name="d3mlx worker", daemon=True)

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue. Raises QueueFullError."""
        with self.changed:
            if self.stopping or len(self.waiting) >= self.max_waiting:
                raise QueueFullError
            self.waiting.append(job)
            self.changed.notify()

    def cancel(self, job: Job) -> None:
        """Drop a job. It leaves the batch before the next step."""
        with self.changed:
            job.canceled = True
            self.changed.notify()

    def abort(self) -> None:
        """Refuse further jobs, and end those that wait or run with ServerEndsError before the next step."""
        with self.changed:
            self.stopping = self.aborting = True
            self.changed.notify()

    def stop(self) -> None:
        """Finish the jobs that were submitted, refuse others, and end the thread."""
        with self.changed:
            self.stopping = True
            self.changed.notify()
        self.thread.join()

    def run(self) -> None:
        """Run steps while there are jobs, and wait otherwise. This is the thread."""
        while True:
            with self.changed:
                while not (self.waiting or self.suspects or self.running or self.stopping):
                    self.changed.wait()
                if not (self.waiting or self.suspects or self.running):
                    return
            self.drop_canceled()
            if self.aborting:
                self.end_all()
                continue
            self.start_jobs()
            self.step()

    def drop_canceled(self) -> None:
        """Remove canceled jobs from the queue and from the batch."""
        with self.changed:
            self.waiting = deque(job for job in self.waiting if not job.canceled)
            self.suspects = deque(job for job in self.suspects if not job.canceled)
        for request, (job, *_) in list(self.running.items()):
            if job.canceled:
                self.totals.end("canceled", request.stats.tokens)
                self.leave(request)

    def end_all(self) -> None:
        """End all jobs with ServerEndsError."""
        jobs = [*self.waiting, *self.suspects, *(job for job, *_ in self.running.values())]
        self.waiting.clear()
        self.suspects.clear()
        for request in list(self.running):
            self.leave(request)
        for job in jobs:
            self.fail(job, ServerEndsError("The server is ending. Send the request again later."))

    def leave(self, request: Request) -> None:
        """Remove a request from the batch."""
        self.batcher.cancel(request)
        request.release()
        del self.running[request]

    def start_jobs(self) -> None:
        """Start waiting jobs while there is room. A job that is suspected of a failure runs alone."""
        while self.batcher.has_room and not (self.suspects and self.running):
            with self.changed:
                queue = self.suspects or self.waiting
                if not queue:
                    return
                job = queue.popleft()
                alone = queue is self.suspects
            self.start(job)
            if alone:
                return

    def start(self, job: Job) -> None:
        """Begin the generation of a job."""
        try:
            order = self.fitted(job.order)
            generation = Generation(self.model, self.tokenizer, order.prompt, order.decoder, **order.options)
            prefixes = self.prefixes_for(generation)
            if prefixes is not None and (cache := prefixes.best(generation.layout.pieces[0])) is not None:
                generation.reuse(cache)
            self.batcher.submit(generation.request)
        except Exception as error:
            self.fail(job, error)
            return
        cells = Cells(generation, self.tokenizer) if job.watched else None
        self.running[generation.request] = job, generation, cells

    def fitted(self, order: Order) -> Order:
        """Return an order whose answer fits the context. Many clients always ask for thousands of tokens."""
        most = order.options.get("max_tokens")
        if most is None or isinstance(order.prompt, Document):
            return order
        args = self.model.args
        size = decoder_for(self.model, order.decoder).block_size_of(args) or 1
        room = args.context // size * size - len(encode(self.tokenizer, order.prompt, args.context))
        return replace(order, options={**order.options, "max_tokens": min(most, max(room, 1))})

    def prefixes_for(self, generation: Generation) -> Prefixes | None:
        """Return the caches that a generation may use. None for quantized keys and values, which are not exact."""
        return self.prefixes if generation.decoder.kv is None else None

    def fail(self, job: Job, error: Exception) -> None:
        """End a job with an error."""
        self.totals.end("error", job.progress.stats.tokens)
        job.report(replace(job.progress, error=error))

    def step(self) -> None:
        """Run one step of all running jobs and report their progress."""
        try:
            steps = self.batcher.step()
        except Exception as error:
            self.isolate(error)
            return
        self.totals.add(step for _, step in steps)
        for request, step in steps:
            job, generation, cells = self.running[request]
            try:
                step = generation.take(step)
                picture = None
                if cells is not None:
                    cells.take(step)
                    picture = Picture.of(cells)
                if generation.request is not request:
                    # A hole was too small. The next round waits for its turn.
                    self.batcher.submit(generation.request)
                    self.running[generation.request] = job, generation, cells
            except Exception as error:
                # A text that cannot be decoded, or a larger canvas that does not fit, ends only its own job.
                self.leave(request)
                self.fail(job, error)
                continue
            if generation.done:
                self.totals.end(generation.finish_reason, generation.stats.tokens)
                if (prefixes := self.prefixes_for(generation)) is not None:
                    prefixes.add(request.cache)
            if generation.done or generation.request is not request:
                self.leave(request)
            job.report(
                Progress(
                    # After a restart, the text of the first attempt is a beginning of the text that follows.
                    text=max(job.progress.text, generation.text, key=len),
                    picture=picture,
                    prompt_tokens=int(generation.canvas.given.sum()),
                    cached_tokens=generation.reused,
                    stats=generation.stats,
                    finish_reason=generation.finish_reason if generation.done else None,
                    stopped_by=next((stream.stopped_by for stream in generation.streams if stream.done), None),
                )
            )

    def isolate(self, error: Exception) -> None:
        """Find the job whose step failed. A single job ends with the error; several start again, one at a time."""
        jobs = [job for job, *_ in self.running.values()]
        for request in list(self.running):
            self.leave(request)
        if len(jobs) == 1:
            self.fail(jobs[0], error)
        else:
            self.suspects.extend(jobs)
