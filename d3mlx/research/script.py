"""Runner of the builds and experiments as modules, with `python -m`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from d3mlx.errors import D3Error


def script(command: Callable[..., None]) -> None:
    """Run a function as a command line. An error that the user can fix ends it with one sentence."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except D3Error as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        sys.exit(f"Error: {error.strerror or error}{file}.")
