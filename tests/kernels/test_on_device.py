"""Copies of NumPy arrays for the device."""

from __future__ import annotations

import signal
import time
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.kernels.dispatch import on_device


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.uint32, np.float32])
def test_values_arrive_unchanged(dtype: Any) -> None:
    values = np.arange(24).reshape(6, 4).astype(dtype)
    for sent in (values, values[::2, 1:].T, values[:0], values[0, 0, None]):
        arrived = on_device(sent)
        assert arrived.dtype == mx.array(sent).dtype
        assert np.array_equal(np.array(arrived), sent)


def test_values_are_copied() -> None:
    values = np.zeros(3, np.int32)
    arrived = on_device(values)
    values[:] = 1
    assert arrived.tolist() == [0, 0, 0]


def test_no_interrupt_is_lost() -> None:
    """A call of `mx.array` with a NumPy array loses many interrupts."""
    handled = raised = 0

    def interrupt(*_: object) -> None:
        nonlocal handled
        handled += 1
        raise KeyboardInterrupt

    values = np.arange(1000, dtype=np.int32)
    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        while handled < 50 and time.monotonic() - began < 30:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                while signal.getitimer(signal.ITIMER_REAL)[0]:
                    on_device(values)
                # The timer has expired, but the system may deliver its signal a moment later.
                time.sleep(0.1)
            except KeyboardInterrupt:
                raised += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (handled, raised) == (50, 50)
