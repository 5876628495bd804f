"""Entry point of the `d3mlx` script. It imports the program after it has set the action of Ctrl-C."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from d3mlx.cli.main import run

    run()
