"""Start and end of the server."""

from __future__ import annotations

import os
import socket
import threading
from types import FrameType

import uvicorn

from d3mlx.errors import ConfigError
from d3mlx.server.app import Settings, create_app
from d3mlx.server.worker import Worker

FINISH_SECONDS = 5
"""Time for running requests to end after the first Ctrl-C. Then they get an error."""

CLOSE_SECONDS = 8
"""Time until all connections are closed."""

MOST_HEADER_BYTES = 64 << 10
"""Largest headers of a request."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address. Raises ConfigError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(f"Cannot listen on {host}, port {port}: {reason}. Choose another --host or --port.") from None


class Server(uvicorn.Server):
    """A server whose running requests end soon after a signal."""

    def __init__(self, config: uvicorn.Config, worker: Worker):
        super().__init__(config)
        self.worker = worker

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, and end the requests that still run after FINISH_SECONDS."""
        timer = threading.Timer(FINISH_SECONDS, self.worker.abort)
        timer.daemon = True
        timer.start()
        super().handle_exit(sig, frame)


def serve(worker: Worker, settings: Settings, address: socket.socket) -> None:
    """Serve until the process gets a signal to end."""
    config = uvicorn.Config(
        create_app(worker, settings),
        # The application reports its own errors. A client that leaves is not an error.
        log_level="critical",
        timeout_graceful_shutdown=CLOSE_SECONDS,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        http="h11",
    )
    Server(config, worker).run(sockets=[address])
