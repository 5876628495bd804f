"""Predicted times per token of block-causal models."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3mlx.research.experiments.block_causal import BLOCKS, PAGE, Contestant, predictions, rooflines
from d3mlx.research.experiments.pages import between

ROOT = Path(__file__).parents[3]


def test_the_page_has_the_current_predictions() -> None:
    assert between(ROOT / PAGE, "predictions") == predictions()


@pytest.mark.parametrize("each", BLOCKS, ids=lambda each: each.name)
def test_at_the_break_even_a_token_takes_as_long_as_an_autoregressive_one(each: Contestant) -> None:
    for roofline in rooflines(each.shape):
        tpf = each.break_even(roofline)
        assert each.seconds(roofline, tpf) == pytest.approx(roofline.seconds(1))
        assert each.seconds(roofline, 1.1 * tpf) < roofline.seconds(1)
        # One token per forward: a block takes as many forwards as it has tokens, and a commit that is not fused.
        expected = (each.block - each.fused) * roofline.seconds(each.block)
        expected += roofline.seconds(2 * each.block if each.fused else each.block)
        assert each.seconds(roofline, 1) == pytest.approx(expected / each.block)
