"""Logits of block-causal models, compared with the reference: complete sequences, open blocks, and sub-blocks."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from d3mlx.cache import CachedLayer, KVCache, RowIndex
from d3mlx.models import get_model_classes
from tests.golden.cases import FOLDER, model

TOLERANCE = 2e-4
CASES = [(family, file) for family in ("sdar", "fast_dllm_v2") for file in ("logits", "logits_tied")]
CASES += [("llada2_moe", "logits"), ("stable_diffcoder", "logits")]
COUNTS = {"sdar": (12, 3), "fast_dllm_v2": (10, 2), "llada2_moe": (8, 0), "stable_diffcoder": (7, 0)}


def compute(net: Any, cache: KVCache, ids: Any, start: int, block: int | None, length: int | None = None) -> Any:
    """Compute rows from `start` on with the cache, and return their logits. length: end of the attended part."""
    rows = RowIndex(np.arange(start, start + len(ids), dtype=np.int32), length or start + len(ids), block)
    return np.array(net.logits(net.hidden(mx.array(ids)[None], rows.positions, cache.open(rows, ids))))[0]


@pytest.mark.parametrize(("family", "file"), CASES)
def test_logits_equal_those_of_the_reference(family: str, file: str) -> None:
    data: Any = np.load(FOLDER / family / f"{file}.npz")
    net = model(family)
    if file == "logits_tied":
        net = load_model(FOLDER / family / "model_tied", get_model_classes=get_model_classes)[0]
    compared = 0
    for key in data:
        kind, number, what = key.split("_", 2)
        if what != "logits":
            continue
        part: dict[str, Any] = {
            name.split("_", 2)[2]: data[name] for name in data if name.startswith(f"{kind}_{number}_")
        }
        cache = KVCache(len(net.layers))
        if kind == "full":
            ours = compute(net, cache, part["ids"], 0, int(part["block"]))
        else:
            prefix, block = part["prefix"], part["block"]
            compute(net, cache, prefix, 0, len(block))
            layer, known = cache.layers[0], len(prefix)
            assert isinstance(layer, CachedLayer)
            if "k_layer0" in part:
                assert np.abs(np.array(layer.arrays[0][0, 0, :, :known]) - part["k_layer0"]).max() < 1e-4
                assert np.abs(np.array(layer.arrays[0][1, 0, :, :known]) - part["v_layer0"]).max() < 1e-4
            ours = compute(net, cache, block, known, len(block))
            if kind == "sub":
                start = known + int(part["start"])
                ours = compute(net, cache, part["rows"], start, len(block), known + len(block))
        assert np.abs(ours - part["logits"]).max() < TOLERANCE, key
        compared += 1
    assert compared == COUNTS[family][file == "logits_tied"]


def test_the_prefix_may_be_computed_in_chunks() -> None:
    data: Any = np.load(FOLDER / "sdar" / "logits.npz")
    ids, net = data["full_3_ids"], model("sdar")
    size, cache = int(data["full_3_block"]), KVCache(len(net.layers))
    chunks = [compute(net, cache, ids[i : i + 2 * size], i, size) for i in range(0, len(ids), 2 * size)]
    assert np.abs(np.concatenate(chunks) - data["full_3_logits"]).max() < TOLERANCE
