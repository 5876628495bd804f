"""Tests of costs from shapes, and of rooflines from costs."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.utils import get_total_parameters

from d3mlx.bench.chips import CHIPS, Chip, chip_named
from d3mlx.bench.cost import cost, precision
from d3mlx.bench.roofline import Roofline
from d3mlx.bench.shapes import GROUP, SHAPES, Sizes, random_model, skeleton
from d3mlx.checkpoints.loader import nbytes
from d3mlx.errors import ConfigError, MemoryLimitError
from d3mlx.models import dream, llada
from d3mlx.tuning import favored
from tests.builders import DREAM_CONFIG, LLADA_CONFIG

TINY = Sizes("llada", layers=2, hidden=64, heads=4, kv_heads=2, ff=128, vocab=100)
LLADA_4BIT = cost(skeleton(SHAPES["llada-8b"], 4), 0)


def products(model: nn.Module) -> int:
    """Return the FLOP per row, computed in another way: two per weight of a projection."""
    leaves = [leaf for _, leaf in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)]
    return sum(2 * leaf.weight.size for leaf in leaves if isinstance(leaf, nn.Linear))


def test_shapes_have_the_parameters_of_the_checkpoints() -> None:
    """SDAR-8B has those of Qwen3-8B, and Fast-dLLM v2 7B and Dream those of Qwen2.5-7B."""
    counts = {"sdar-8b": 8_190_735_360, "fast-dllm-v2-7b": 7_615_616_512, "dream-7b": 7_615_616_512}
    # The layers are those of Llama 3 8B. Stable-DiffCoder has 8.25 billion parameters, iLLaDA 7.62 billion.
    layers, embedding = 8_030_261_248 - 2 * 128_256 * 4096, 155_136 * 4096
    counts |= {"stable-diffcoder-8b": layers + 2 * embedding, "illada-8b": layers + embedding}
    for name, count in counts.items():
        assert get_total_parameters(skeleton(SHAPES[name])) == count
    head = 151_936 * 2560
    # Qwen3-4B has one matrix for embedding and head, SDAR-4B two.
    assert get_total_parameters(skeleton(SHAPES["sdar-4b"])) == 4_022_468_096 + head


@pytest.mark.parametrize(
    "model",
    [
        llada.Model(llada.ModelArgs.from_dict(LLADA_CONFIG)),
        llada.Model(llada.ModelArgs.from_dict(LLADA_CONFIG | {"n_kv_heads": 1, "n_layers": 3})),
        llada.Model(llada.ModelArgs.from_dict(LLADA_CONFIG | {"weight_tying": True})),
        dream.Model(dream.ModelArgs.from_dict(DREAM_CONFIG)),
        dream.Model(dream.ModelArgs.from_dict(DREAM_CONFIG | {"tie_word_embeddings": True})),
    ],
    ids=["llada", "llada with one kv head", "llada tied", "dream", "dream tied"],
)
def test_costs_are_those_of_the_weights(model: nn.Module) -> None:
    context = 10
    result = cost(model, context)
    embedding = model.model.embed_tokens.weight
    tied = not hasattr(model, "lm_head")
    head = 2 * embedding.size if tied else 0
    assert result.body_flop + result.head_flop == products(model) + head
    assert result.weight_bytes == nbytes(model) - (0 if tied else embedding.nbytes)
    attention = model.layers[0].self_attn
    values = 2 * len(model.layers) * context * attention.kv_heads * attention.head_dim
    assert result.cache_bytes == values * model.model.norm.weight.itemsize
    # Scores and weighted values are two products per cached position and query head.
    assert result.attention_flop == 4 * len(model.layers) * context * attention.heads * attention.head_dim
    assert cost(model, 0).attention_flop == cost(model, 0).cache_bytes == 0


@pytest.mark.parametrize(
    ("chip", "row", "crossover", "times", "ceiling"),
    [
        (chip_named("M4 Pro"), 2.5, 10, (81, 244, 890), 39),
        (chip_named("M4 Max"), 1.28, 10, (41, 123, 449), 78),
        # This prediction assumed 597 GB/s for an M5 Max. The published figure is 614.
        (Chip("M5 Max", 597e9, chip_named("M5 Max").flops), 0.34, 34, (12, 33, 119), 85),
    ],
    ids=lambda value: value.name if isinstance(value, Chip) else "",
)
def test_published_predictions(chip: Chip, row: float, crossover: int, times: tuple[int, ...], ceiling: int) -> None:
    """The predicted times of LLaDA-8B at 4 bits are those published with the design."""
    roofline = Roofline(chip, LLADA_4BIT)
    assert round(LLADA_4BIT.body_flop / 1e9, 1) == 14.0
    assert round(LLADA_4BIT.head_flop / 1e9, 2) == 1.04
    assert round(LLADA_4BIT.nbytes(1) / 1e9, 1) == 4.2
    digits = 1 if row > 2 else 2
    assert round(1000 * roofline.per_row, digits) == row
    assert int(roofline.crossover) == crossover
    assert tuple(round(1000 * roofline.seconds(rows)) for rows in (32, 96, 350)) == times
    assert round(roofline.ceiling) == ceiling


@given(
    st.sampled_from(CHIPS),
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from([None, 8]),
    st.integers(0, 4096),
    st.lists(st.integers(1, 1024), min_size=2, unique=True),
)
def test_a_roofline_is_flat_and_then_straight(
    chip: Chip, shape: str, q_bits: int | None, context: int, rows: list[int]
) -> None:
    q_bits = q_bits if shape != "llada-1b" else None
    roofline = Roofline(chip, cost(skeleton(SHAPES[shape], q_bits), context))
    table = roofline.times(rows)
    assert [count for count, _ in table] == sorted(rows)
    for count, seconds in table:
        if count <= roofline.crossover:
            assert seconds == roofline.reading(count)
        else:
            assert seconds == pytest.approx(count * roofline.per_row)
            assert seconds > roofline.reading(count)
    assert roofline.crossover * roofline.per_row == pytest.approx(roofline.reading(roofline.crossover))


def test_a_mixture_of_experts_reads_more_for_more_rows() -> None:
    """In LLaDA2-mini, a row uses 8 of 256 experts per layer, and 32 rows about 163."""
    mixed = cost(skeleton(SHAPES["llada2-mini"], 4), context=0)
    assert mixed.experts is not None
    assert [round(mixed.experts.distinct(rows)) for rows in (0, 1, 8, 32, 10**6)] == [0, 8, 57, 163, 256]
    assert [round((mixed.nbytes(rows) - mixed.nbytes(0)) / 1e9, 2) for rows in (1, 8, 32)] == [0.27, 1.93, 5.49]
    # Of 16 billion parameters, a row computes 1.4 billion, each with a product and a sum.
    parameters = sum(value.size for _, value in tree_flatten(skeleton(SHAPES["llada2-mini"]).parameters()))
    assert round(parameters / 1e9, 1) == 16.3
    assert round(mixed.flop_per_row / 2e9, 1) == 1.1
    roofline = Roofline(chip_named("m4-pro"), mixed)
    seconds = [roofline.seconds(rows) for rows in (1, 8, 32)]
    assert seconds == sorted(set(seconds))
    assert 8 * seconds[0] > seconds[1] > 2 * seconds[0]


def test_chips() -> None:
    names = [chip.name for chip in CHIPS]
    assert len(set(names)) == len(names)
    for chip in CHIPS:
        assert chip_named(f"apple-{chip.name.lower().replace(' ', '_')}") is chip
    # Only one rate comes from a published measurement.
    assert [chip.name for chip in CHIPS if not chip.assumed] == ["M4 Max"]
    with pytest.raises(ConfigError, match="M9"):
        chip_named("M9")


def test_named_shapes_are_the_published_models() -> None:
    totals = {name: get_total_parameters(skeleton(sizes)) for name, sizes in SHAPES.items()}
    assert totals["llada-8b"] == 8_015_581_184
    assert totals["dream-7b"] == 7_615_616_512
    assert round(totals["llada-1b"] / 1e9, 2) == 1.49


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("q_bits", [None, 4])
def test_random_models_run(family: str, q_bits: int | None) -> None:
    sizes = Sizes(family, layers=2, hidden=64, heads=2, kv_heads=1, ff=128, vocab=100)
    model = random_model(sizes, q_bits)
    logits = model(mx.array([[1, 2, 3]]))
    assert logits.shape == (1, 3, 100)
    assert not mx.isnan(logits).any().item()
    assert precision(model) == ("float32" if q_bits is None else "4-bit")
    if q_bits:
        layer = model.layers[0].mlp.down_proj
        assert (layer.bits, layer.group_size, layer.scales.dtype) == (4, GROUP, mx.bfloat16)


def test_floats_of_a_quantized_model_exist_one_layer_at_a_time() -> None:
    sizes = Sizes("llada", layers=16, hidden=256, heads=4, kv_heads=4, ff=512, vocab=256)
    floats = 4 * get_total_parameters(skeleton(sizes))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = random_model(sizes, 4)
    taken = mx.get_peak_memory() - before
    assert nbytes(model) <= taken < nbytes(model) + 8 * 4 * 256 * 512
    assert taken < floats / 2


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"layers": 0}, "--layers"),
        ({"vocab": 3}, "--vocab"),
        ({"heads": 3}, "--heads"),
        ({"heads": 64}, "--heads"),
        ({"kv_heads": 3}, "--kv-heads"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Sizes(**(vars(TINY) | changes))


def test_models_that_cannot_be_quantized_or_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not 7"):
        skeleton(TINY, 7)
    with pytest.raises(ConfigError, match="--ff 5634"):
        skeleton(SHAPES["llada-1b"], 4)
    monkeypatch.setattr("d3mlx.bench.shapes.memory_limit", lambda: 10**9)
    with pytest.raises(MemoryLimitError, match=r"4\.5 GB, but this machine can use 1\.0 GB"):
        random_model(SHAPES["llada-8b"], 4)
    assert math.isclose(nbytes(skeleton(SHAPES["llada-8b"], 4)) / 1e9, 4.509, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("device", "resource"),
    [("Apple M1", "rows"), ("Apple M4 Max", "rows"), ("Apple M5", "forwards"), ("Apple M12 Ultra", "forwards")],
)
def test_what_to_save_on_each_chip(device: str, resource: str) -> None:
    assert favored(device) == resource
    assert favored(f"{device} (CPU)") == "rows"
