"""What the `d3mlx` script runs: the command line, imported once Ctrl-C ends the process without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from d3mlx.cli.main import run

    run()
