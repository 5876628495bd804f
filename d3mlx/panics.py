"""Panics of the tokenizers library, which is written in Rust. They are not Exceptions, and write to standard error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from d3mlx.errors import D3Error, first_line, is_panic

STANDARD_ERROR = 2
ONE_AT_A_TIME = RLock()
"""Lock on the descriptor of standard error. Two threads that replace it would restore each other's replacement."""


@contextmanager
def panics_as(kind: type[D3Error], beginning: str, advice: str) -> Iterator[None]:
    """Turn a panic in the block into an error: the beginning, the reason, the advice. Hide the text of the library."""
    try:
        with ONE_AT_A_TIME, hidden_errors():
            yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise kind(f"{beginning}: {first_line(error)}. {advice}") from error


@contextmanager
def hidden_errors() -> Iterator[None]:
    """Send to nowhere what libraries write to standard error in the block."""
    try:
        kept = os.dup(STANDARD_ERROR)
    except OSError:
        # It is closed, so nothing can be written.
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STANDARD_ERROR)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)
