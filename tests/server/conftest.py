"""A server in this process, with the bundled model or a replica."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from d3mlx import Sampling, load
from d3mlx.models import traits_of
from d3mlx.server.app import Settings, create_app
from d3mlx.server.fields import Defaults
from d3mlx.server.worker import Worker

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    worker: Worker


@contextmanager
def served(model: Any, tokenizer: Any, *, api_key: str | None = None, **options: Any) -> Iterator[Served]:
    """Run a server on a free port. options: of the worker."""
    worker = Worker(model, tokenizer, **options)
    defaults = Defaults(traits_of(model.family).decoder, {}, Sampling(), None)
    app = create_app(worker, Settings("embedded", defaults, api_key, ("https://allowed.example",)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", http="h11"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", worker)
    finally:
        server.should_exit = True
        thread.join()
        assert not worker.thread.is_alive()


@pytest.fixture(scope="session")
def embedded() -> Any:
    return load()


@pytest.fixture(scope="module")
def server(embedded: Any) -> Iterator[Served]:
    with served(*embedded) as running:
        yield running
