"""Commands that are run as modules, with `python -m`: builds and experiments."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from d3mlx.errors import D3Error


def script(command: Callable[..., None]) -> None:
    """Run a function as a command line of its own; what a user can mend is told in one sentence."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except D3Error as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        sys.exit(f"Error: {error.strerror or error}{file}.")
