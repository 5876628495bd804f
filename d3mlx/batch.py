"""The Batcher, which runs many requests in one forward and decides which of them wait, run and fit in memory."""

from __future__ import annotations

from collections import deque

from d3mlx.cache import bytes_per_position
from d3mlx.checkpoints.loader import compute_dtype, memory_limit, nbytes
from d3mlx.engine import step
from d3mlx.errors import ConfigError, MemoryLimitError
from d3mlx.models import DiffusionModel
from d3mlx.profiling import Profiler
from d3mlx.request import Request, Step

MAX_BATCH = 8
"""Default for the maximum number of requests in one forward."""

MOST_AT_ONCE = 4096
"""Largest number of requests that a command decodes at once."""

RESERVE = 0.1
"""Share of the memory limit that caches leave free for activations and logits."""


class Batcher:
    """Requests that share forwards. They join in the order of submission and leave between steps.

    waiting: requests that are submitted but not started. running: requests in the next forward.
    """

    def __init__(
        self,
        model: DiffusionModel,
        max_batch: int = MAX_BATCH,
        *,
        reserve: float = RESERVE,
        limit: int | None = None,
    ):
        """Make a batcher without requests.

        max_batch: maximum number of requests that run at once. limit: bytes that weights and caches may take together;
        by default the loader's limit for weights. reserve: share of `limit`, from 0 to below 1, that stays free while
        several requests run; a request that runs alone may use it. Raises ConfigError.
        """
        if max_batch < 1:
            raise ConfigError(f"The batch size must be at least 1, not {max_batch}.")
        if not 0 <= reserve < 1:
            raise ConfigError(f"The memory reserve must be at least 0 and below 1, not {reserve}.")
        self.model, self.max_batch = model, max_batch
        self.itemsize = compute_dtype(model).size
        limit = memory_limit() if limit is None else limit
        self.free = limit - nbytes(model)
        self.budget = self.free - int(limit * reserve)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def busy(self) -> bool:
        """Return whether a request is waiting or running."""
        return bool(self.waiting or self.running)

    @property
    def has_room(self) -> bool:
        """Return whether another request may join the next step, if memory allows."""
        return len(self.waiting) + len(self.running) < self.max_batch

    @property
    def reserved(self) -> int:
        """Return the most bytes that the caches of the running requests may need."""
        return sum(self.bytes_of(request) for request in self.running)

    def bytes_of(self, request: Request) -> int:
        """Return the most bytes that the cache of a request may need: all positions of its canvas in all its lanes."""
        shape = self.model.args.shape()
        return sum(
            len(lane.canvas) * bytes_per_position(shape, self.itemsize, lane.cache.keep, lane.cache.quantization)
            for lane in request.lanes
        )

    def submit(self, request: Request) -> None:
        """Put a request at the end of the queue.

        Raises MemoryLimitError as `check` does, and ConfigError if the request is done or was already submitted.
        """
        if request.done or any(request is other for other in (*self.waiting, *self.running)):
            raise ConfigError("This request is done or was already submitted. Make a new request.")
        self.check(request)
        self.waiting.append(request)

    def check(self, request: Request) -> None:
        """Raise MemoryLimitError if a request cannot run even alone."""
        needed = self.bytes_of(request)
        if needed > self.free:
            raise MemoryLimitError(
                f"A request of {len(request.canvas)} positions needs {needed / 1e9:.3f} GB for its cache, and the "
                f"weights leave {max(self.free, 0) / 1e9:.3f} GB. Shorten the prompt, lower max-tokens, or use a model "
                "with fewer bits."
            )

    def cancel(self, request: Request) -> None:
        """Remove a request, whether it is waiting, running or already removed."""
        self.running = [other for other in self.running if other is not request]
        self.waiting = deque(other for other in self.waiting if other is not request)

    def admit(self) -> None:
        """Start waiting requests in order, until the next one does not fit."""
        while self.waiting and len(self.running) < self.max_batch:
            if self.running and self.reserved + self.bytes_of(self.waiting[0]) > self.budget:
                return
            self.running.append(self.waiting.popleft())

    def step(self, profile: Profiler | None = None) -> list[tuple[Request, Step]]:
        """Admit requests, run one forward, and return the Step of every request that ran, in order of admission.

        Requests that are done leave the batch. Returns an empty list when no request is left. profile: as for
        `engine.step`.
        """
        self.admit()
        if not self.running:
            return []
        steps = list(zip(self.running, step(self.model, self.running, profile), strict=True))
        self.running = [request for request in self.running if not request.done]
        return steps
