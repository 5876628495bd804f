"""Reading of a pseudo-terminal, on which commands believe that a person watches."""

from __future__ import annotations

import os


def read_terminal(main: int) -> str:
    """Return everything that is written to a pseudo-terminal until its other side is closed. Close `main`."""
    seen = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            # Linux reports the end in this way.
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    return seen.decode()
