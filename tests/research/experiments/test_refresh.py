"""The effect of stale rows: none if everything is computed, and some if little is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from d3mlx import Selective, load
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.evaluate.run import EvalModel
from d3mlx.evaluate.tasks import task
from d3mlx.research.experiments.refresh import find, variants


def test_slips_and_drift_come_from_rows_that_are_not_computed() -> None:
    subject = EvalModel(*load(EMBEDDED), max_tokens=24)
    chosen = variants(Selective(block_size=8))
    few = chosen["recent 1, near 0"]
    all_rows = replace(few, preset=replace(few.preset, rows=512, near=512))
    exact = find(subject, task("embedded", "llada"), "everything", all_rows, (1, 1)).slips
    stale = find(subject, task("embedded", "llada"), "few", few, (1, 1)).slips
    assert exact.commits > 12
    assert exact.slipped == 0
    assert exact.mean_drift == pytest.approx(0, abs=1e-4)
    assert stale.mean_drift > 0.005


def test_every_variant_decodes() -> None:
    subject = EvalModel(*load(EMBEDDED), max_tokens=8)
    for name, variant in variants(Selective(block_size=4)).items():
        (record,) = find(subject, task("embedded", "llada"), name, variant, (1, 0)).records
        assert 0 < record.tokens <= 8
        assert record.rows >= record.prefill_rows
