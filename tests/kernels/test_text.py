"""The Metal text of every kernel is equal to its snapshot, and the lint accepts it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from d3mlx.canvas import Canvas
from d3mlx.decoding.acceptance import NO_COMMITS, Candidates
from d3mlx.decoding.cache_policy import Kind
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.fast_dllm_v2 import FastDLLMv2
from d3mlx.decoding.sampling import Noise
from d3mlx.decoding.schedule import ActiveBlocks
from d3mlx.decoding.sdar import SDAR
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.stable_diffcoder import StableDiffCoder
from d3mlx.decoding.vanilla import DREAM_ALGS, LLADA_ALGS, Vanilla
from d3mlx.kernels.accept_blocks import kernel_of
from tests.kernels import snapshot
from tests.metal import apple, lint
from tests.metal.requirements import require_clang
from tests.metal.trace import Generated


def test_snapshots_are_up_to_date() -> None:
    saved = {file.name: file.read_text() for file in snapshot.FOLDER.iterdir()}
    assert saved == snapshot.texts(), "run `python -m tests.kernels.snapshot` and review what changed"


def decoders() -> Iterator[Decoder]:
    """Yield a decoder for each acceptance rule that a preset may have."""
    for family in ("llada", "dream"):
        for preset in (D3LLM(), Selective(), FastDLLM(), FastDLLM(cache="none")):
            yield preset.build(family)
        yield Selective(relaxed_threshold=0.7).build(family)
    yield FastDLLM(factor=1.0).build("llada")
    for alg in LLADA_ALGS:
        yield Vanilla(alg=alg).build("llada")
    for alg in DREAM_ALGS:
        yield Vanilla(alg=alg).build("dream")
        yield Vanilla(alg=alg, alg_temp=0.2).build("dream")
    yield Vanilla(alg="origin").build("dream")
    variants: list[dict[str, Any]] = [{}, {"steps": 2}, {"alg": "static"}, {"alg": "sequential"}]
    for options in variants:
        yield SDAR(**options, block_size=4).build("sdar")
    yield FastDLLMv2().build("fast_dllm_v2")
    for each in (StableDiffCoder(), StableDiffCoder(alg="static", steps=2)):
        yield each.build("stable_diffcoder")


SIZES = SimpleNamespace(block_size=32)
"""ModelArgs of a block-causal model."""


def test_each_kernel_of_a_preset_has_a_snapshot() -> None:
    used = set()
    kinds: tuple[Kind, ...] = ("first", "step")
    for decoder in decoders():
        canvas = Canvas.for_prompt([1, 2, 3], 64, mask_id=250, block_size=decoder.block_size_of(SIZES))
        table = decoder.schedule.block_table(canvas)
        active = ActiveBlocks.of(table)
        for kind in kinds:
            candidates = Candidates(canvas.masked_before(active.end), active, kind, NO_COMMITS, Noise(0))
            rule, _ = decoder.acceptance.rule(candidates, decoder.acceptance.start(canvas))
            used.add(kernel_of(rule).name)
    assert used == {kernel_of(rule).name for rule in snapshot.rules(8)}


@cache
def objections(generated: Generated) -> list[str]:
    """Return the problems that the lint reports. Cached, because some kernels have the same text for all dtypes."""
    return lint.check(generated)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 8])
def test_text_is_metal(dtype: mx.Dtype, rows: int) -> None:
    """With one row, small inputs are in another address space."""
    require_clang()
    for kernel, launch in snapshot.typical_calls(dtype, rows):
        assert objections(snapshot.generated(kernel, launch)) == []


def test_apple_compiles_every_text_with_the_headers_of_mlx(tmp_path: Path) -> None:
    files = apple.write(tmp_path)
    kernels = {kernel.name for kernel, _ in snapshot.typical_calls()}
    assert {file.name.split("-")[0] for file in files} == kernels
    # Statistics and rotation have a text for each dtype, and with a few rows another one for small inputs.
    assert len([file for file in files if file.name.startswith("token_stats_draw")]) == 6
    assert len([file for file in files if file.name.startswith("refresh_rows")]) == 6
    for file in files:
        assert file.read_text().startswith('#include "mlx/backend/metal/kernels/utils.h"\n')
    line = apple.command(files[0], "metal3.1")
    assert line[:5] == ["xcrun", "-sdk", "macosx", "metal", "-std=metal3.1"]
    assert (Path(line[line.index("-I") + 1]) / "mlx/backend/metal/kernels/utils.h").is_file()
