"""Twenty seconds of the load script."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from tests.server.load import measure


def test_many_clients_get_their_answers() -> None:
    single, many = measure(16, 64)
    assert single.statuses.keys() == {200}
    assert many.statuses.keys() <= {200, 503}
    assert single.wrong == many.wrong == []
    assert many.left > 5 and len(many.waits) > 50
    # Nobody waits much longer than the others: the queue is served in order.
    waits = sorted(many.waits)
    assert waits[-1] < 20 * waits[len(waits) // 2]
    assert many.memory[-1] < 1.2 * many.memory[len(many.memory) // 4]
