"""Planted defects of the statistics kernel are caught."""

from __future__ import annotations

import mlx.core as mx
import pytest

from d3mlx.kernels import token_stats as kernels
from d3mlx.kernels.token_stats import token_stats
from tests.kernels.conftest import Executor
from tests.kernels.mutants import assert_caught, mutant
from tests.kernels.test_token_stats import check, check_tied_scores, full_range, mixed_draw, rows
from tests.metal import Emulation

DRAW_MUTANTS = {
    "temperature of the first row": ("temperatures[n]", "temperatures[0]"),
    "seed of the first row": ("seeds[n]", "seeds[0]"),
    "call of the first row": ("calls[n]", "calls[0]"),
    "position of the first row": ("positions[n]", "positions[0]"),
    "row index instead of its position": ("uint(positions[n])", "n"),
    "noise at temperature 0": (": x[j];", ": x[j] + gumbel(mixed(first_index + id, seed, call));"),
    "no temperature": ("x[j] / heat + gumbel", "x[j] + gumbel"),
}


@pytest.mark.parametrize("name", DRAW_MUTANTS)
def test_mutant_of_a_draw_is_caught(emulator: Executor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = mx.concatenate([rows(200, seed) for seed in range(3)])
    draw = mixed_draw(len(logits))
    monkeypatch.setattr(kernels, "DRAW_KERNEL", mutant(kernels.DRAW_KERNEL, *DRAW_MUTANTS[name]))

    def run() -> None:
        with emulator(Emulation(seed=1)):
            stats = token_stats(logits, 4, draw)
        check(stats, logits, 4, draw)

    assert_caught(run)


MUTANTS = {
    "wrong reduction identity": ("score = row.drawn_logit = -INFINITY;", "score = row.drawn_logit = 0.0f;"),
    "missing barrier": ("  threadgroup_barrier(mem_flags::mem_threadgroup);\n", ""),
    "off-by-one bound": ("start + j < width ?", "start + j <= width ?"),
    "last element dropped": ("start + j < width ?", "start + j + 1 < width ?"),
    "half-precision accumulation": (
        "row.total += weight;",
        "row.total = static_cast<float>(static_cast<half>(row.total + weight));",
    ),
    "highest id wins a tie": ("if (x[j] > row.best) {", "if (x[j] >= row.best) {"),
    "stale threadgroup slot": (
        "    row = empty_row();\n    if (lane",
        "    shared[lane % simdgroups_per_threadgroup].top = row.top;\n    row = empty_row();\n    if (lane",
    ),
    "slot reused without a barrier": ("  if (group == 0) {\n", "  shared[group].top = 0.0f;\n  if (group == 0) {\n"),
    "excluded id counted as second": ("|| id == barred) {", ") {"),
    "sum not rescaled": ("row.total *= scale;", ""),
    "zero times infinity in a sum": ("weight > 0.0f ? weight * shifted : 0.0f", "weight * shifted"),
    "zero times infinity when a sum is rescaled": ("scale > 0.0f ? scale * (", "scale >= 0.0f ? scale * ("),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(emulator: Executor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = rows(2501, 2, excluded=4)
    logits[1] -= 50
    monkeypatch.setattr(kernels, "LIKELIEST_KERNEL", mutant(kernels.LIKELIEST_KERNEL, *MUTANTS[name]))

    def run() -> None:
        for seed in range(3):
            with emulator(Emulation(seed=seed)):
                result, extreme = token_stats(logits, 4), token_stats(full_range(300), 2)
            check(result, logits, 4, None)
            check(extreme, full_range(300), 2, None)

    assert_caught(run)


@pytest.mark.parametrize(
    ("old", "new"),
    [("drawn = simd_min(", "drawn = simd_max("), ("score > row.score", "score >= row.score")],
    ids=["highest lane wins a tie", "last id of a lane wins a tie"],
)
def test_mutant_of_tied_scores_is_caught(
    emulator: Executor, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "SCORES_KERNEL", mutant(kernels.SCORES_KERNEL, old, new))

    def run() -> None:
        with emulator(Emulation(seed=1)):
            check_tied_scores()

    assert_caught(run)
