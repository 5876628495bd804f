"""Start of the server."""

from __future__ import annotations

import socket

import uvicorn

from d3mlx.errors import ConfigError
from d3mlx.server.app import Settings, create_app
from d3mlx.server.worker import Worker

SHUTDOWN_SECONDS = 10
"""Time for running requests to end after the first Ctrl-C."""

MOST_HEADER_BYTES = 64 << 10
"""Largest headers of a request."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address. Raises ConfigError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"Cannot listen on {host}, port {port}: {reason}. Choose another --host or --port.") from None


def serve(worker: Worker, settings: Settings, address: socket.socket) -> None:
    """Serve until the process gets a signal to end."""
    config = uvicorn.Config(
        create_app(worker, settings),
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        http="h11",
    )
    uvicorn.Server(config).run(sockets=[address])
