"""A whole decode gives the same tokens with every kernel emulated as with the references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import Entropy
from d3mlx.decoding.presets import D3LLM, Decoder
from d3mlx.decoding.rows import Plan, run
from d3mlx.decoding.sampling import Sampling
from d3mlx.decoding.schedule import MultiBlock
from d3mlx.engine import decode
from d3mlx.kernels import dispatch
from tests.golden.cases import model
from tests.kernels.conftest import Executor
from tests.metal import Emulation


@dataclass(frozen=True)
class MaskedOnly:
    """Everything once, then the masked positions wherever they stand: rows that do not form a run."""

    cached: bool = True

    def start(self, canvas: Canvas) -> bool:
        return False

    def step(self, canvas: Canvas, view: Any, state: bool) -> tuple[Plan, bool]:
        if not state:
            return run(0, len(canvas), "first"), True
        return Plan(np.flatnonzero(canvas.tokens == canvas.mask_id).astype(np.int32)), True


DECODERS = {
    "d3llm": D3LLM(threshold=2.0, block_size=8, cache_delay=1, refresh_interval=4).build("llada"),
    "scattered rows": Decoder(MultiBlock(8, 0.1, 0.9), Entropy(2.0), MaskedOnly()),
}


def tokens(decoder: Decoder, sampling: Sampling) -> list[list[int]]:
    canvas = Canvas([3, 14, 15, 92, 65], 24, mask_id=250, end_ids=())
    return [step.tokens.tolist() for step in decode(model("llada"), canvas, decoder, sampling)]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_same_tokens(executor: Executor, name: str, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=3)
    with patch.object(dispatch, "on_gpu", lambda: False):
        expected = tokens(DECODERS[name], sampling)
    with executor(Emulation(seed=1)) as records:
        found = tokens(DECODERS[name], sampling)
    assert found == expected
    assert sum(map(len, found)) == 24
    if records is not None:
        wanted = {"token_stats"} | ({"refresh_rows"} if name == "scattered rows" else set())
        assert all(any(kernel in record.kernel for record in records) for kernel in wanted)
