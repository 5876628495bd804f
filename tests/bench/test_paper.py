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
from d3mlx.bench.forwards import ROWS
from d3mlx.bench.kernels import Matrix, vector_limit
from d3mlx.bench.roofline import Roofline
from d3mlx.bench.shapes import GROUP, SHAPES, Sizes, random_model, skeleton
from d3mlx.checkpoints.loader import nbytes
from d3mlx.errors import ConfigError, MemoryLimitError
from d3mlx.models import dream, llada
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


def test_the_matrices_of_a_cost_are_those_that_every_row_uses() -> None:
    for shape, q_bits, chosen in (("llada-8b", 4, 0), ("dream-7b", None, 0), ("llada2-mini", 4, 19 * 8 * 512 * 2048)):
        result = cost(skeleton(SHAPES[shape], q_bits), 0)
        # Each expert has three matrices, and a weight takes a product and a sum.
        assert result.expert_flop == 2 * 3 * chosen
        assert result.quantized == (q_bits is not None)
        # 4 bits, and a scale and a bias of 16 bits each per 64 weights. The router of LLaDA2 is not quantized.
        assert result.bits == pytest.approx(4.5 if q_bits else 16, rel=0.05)


@pytest.mark.parametrize(
    ("chip", "limits"),
    [
        ("M1 Max", (14, 10, 6)),
        ("M2", (14, 10, 6)),
        ("M3 Pro", (13, 15, 13)),
        ("M4 Max", (13, 15, 13)),
        ("M5", (33, 25, 13)),
        ("M2 Ultra", (32, 18, 12)),
        ("M3 Ultra", (32, 18, 12)),
    ],
)
def test_the_limits_of_the_vector_kernel(chip: str, limits: tuple[int, ...]) -> None:
    matrices = Matrix(2048, 2048), Matrix(2048, 4096), Matrix(2048, 4097)
    assert tuple(vector_limit(chip_named(chip), matrix) for matrix in matrices) == limits
    assert vector_limit(chip_named(chip), Matrix(4097, 64)) == limits[2]


@given(st.sampled_from(CHIPS), st.sampled_from(sorted(SHAPES)), st.booleans(), st.integers(1, 1024))
def test_a_forward_computes_whole_tiles_and_reads_the_weights(
    chip: Chip, shape: str, quantize: bool, rows: int
) -> None:
    q_bits = 8 if quantize and shape != "llada-1b" else None
    roofline = Roofline(chip, cost(skeleton(SHAPES[shape], q_bits), 0))
    assert roofline.seconds(rows) > roofline.cost.nbytes(rows) / chip.bandwidth
    tile = -(-rows // 64) * 64
    # Rows that fill the last tile cost nothing. Without quantization, tiles begin with 2 rows.
    assert roofline.products(tile - (31 if q_bits else 62)) == roofline.products(tile)
    assert roofline.products(tile + 1) > roofline.products(tile)


def test_the_speeds_of_a_published_benchmark() -> None:
    """mlx-lm's BENCHMARKS.md: Qwen3-4B on an M4 Max. SDAR-4B has its shape and one more matrix for the embedding."""
    for q_bits, speed in ((4, 134.5), (None, 52.5)):
        roofline = Roofline(chip_named("M4 Max"), cost(skeleton(SHAPES["sdar-4b"], q_bits), 0))
        assert roofline.ceiling == pytest.approx(speed, rel=0.03)
    prompt = Roofline(chip_named("M4 Max"), cost(skeleton(SHAPES["sdar-4b"], 4), 0))
    # The prediction includes the head for each position, and the published prefill of 1622 tokens per second does not.
    assert 4096 / prompt.seconds(4096) == pytest.approx(1622, rel=0.15)


def test_a_predicted_curve_has_the_stairs_of_the_kernels() -> None:
    roofline = Roofline(chip_named("M3 Max"), LLADA_4BIT)
    curve = roofline.curve(ROWS)
    assert curve.good_counts() == (5, 8, 32, 64)
    seconds = dict(curve.points)
    assert seconds[32] < 1.01 * seconds[16]
    assert seconds[33] > 1.9 * seconds[32]
    assert [seconds[rows] for rows in (1, 2, 8)] == [roofline.seconds(rows) for rows in (1, 2, 8)]
    # On M5, 24 rows take longer than 32 by the rule, so they cost what 32 cost.
    newest = Roofline(chip_named("M5"), LLADA_4BIT)
    assert newest.seconds(24) > dict(newest.curve(ROWS).points)[24] == newest.seconds(32)


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
