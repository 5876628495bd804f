"""Comparison with the published training losses: masks, noisy batches, all terms, gradients, schedules."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from d3mlx.distill.losses import LossConfig, d3llm_loss, loss_rows
from d3mlx.distill.masking import (
    NEVER_SHOWN,
    MaskingConfig,
    Sequence,
    block_size,
    hidden_by_order,
    lowest_ratio,
    moment,
    noisy_pair,
)
from tests.golden.cases import FOLDER, model

MASK = 250
FAMILIES = ("llada", "dream")
REFERENCE = {family: json.loads((FOLDER / family / "train.json").read_text()) for family in FAMILIES}
CASES = [(family, case["name"]) for family in FAMILIES for case in REFERENCE[family]["cases"]]


class Recorded:
    """The draws of a reference run. Masks without a trajectory came from a formula."""

    def __init__(self, draws: list[list[Any]]):
        self.draws, self.calls = list(draws), 0

    def uniform(self, low: float, high: float) -> float:
        kind, *bounds, value = self.draws.pop(0)
        assert (kind, bounds) == ("uniform", [low, high])
        return float(value)

    def integer(self, high: int) -> int:
        assert self.draws[0][:3] == ["randint", 0, high]
        return int(self.draws.pop(0)[3])

    def uniforms(self, count: int) -> Any:
        index = np.arange(count, dtype=np.uint64)
        bits = (index * np.uint64(2654435761) + np.uint64(self.calls * 40503 + 12345)) % np.uint64(2**32)
        self.calls += 1
        return ((bits.astype(np.float64) + 0.5) / 2**32).astype(np.float32)


def order_of(states: Any, length: int) -> Any:
    """Return the step in which each position lost its mask. None if the reference uses random masks instead."""
    if not len(states) or states.shape[1] != length:
        return None
    hidden = (states == MASK).sum(axis=0)
    return np.where(hidden == len(states), NEVER_SHOWN, np.where(hidden == 0, -1, hidden)).astype(np.int32)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_masks_losses_and_gradients(family: str, name: str) -> None:
    case = next(case for case in REFERENCE[family]["cases"] if case["name"] == name)
    arrays = np.load(FOLDER / family / "train.npz")
    config, ids = case["config"], arrays[f"{name}_input_ids"].astype(np.int32)
    noise = MaskingConfig(
        config["min_mask_ratio"],
        config["max_mask_ratio"],
        config["blockwise"],
        config.get("naive", False),
    )
    draws = Recorded(case["random_draws"])
    ratio = draws.uniform(lowest_ratio(noise, config["global_step"], config["max_steps"]), noise.highest)
    size = block_size(tuple(config["progressive_block_sizes"]), config["epoch"])
    assert size == case["block_size_used"]
    pairs = []
    for i, row in enumerate(ids):
        states = arrays[f"{name}_traj_{i}"]
        prompt, full = (int(arrays[f"{name}_{kind}_lengths"][i]) for kind in ("prompt", "full"))
        sequence = Sequence(row, prompt, full, order_of(states, len(row)), len(states))
        pairs.append(noisy_pair(sequence, noise, size, ratio, draws, MASK, to_padding=family == "dream"))
    assert not draws.draws

    shift = int(family == "dream")
    loss_config = LossConfig(config["entropy_weight"], config["temperature"], complement_entropy=family == "dream")
    network = model(family)
    network.unfreeze()
    start = dict(tree_flatten(network.trainable_parameters()))
    terms: dict[str, float] = {}
    total, gradients = 0.0, {name: mx.zeros_like(value) for name, value in start.items()}
    for part in range(2 if config["complementary"] else 1):
        suffix = ("", "_rev")[part]
        noisy = [pair[part] for pair in pairs]
        assert np.array_equal(np.stack([n.ids for n in noisy]), arrays[f"{name}_noisy_batch{suffix}"])
        lost = np.stack([n.lost for n in noisy])
        assert np.array_equal(lost[:, shift:], arrays[f"{name}_masked_indices{suffix}"])
        batch = list(zip(noisy, ids, strict=True))
        rows = loss_rows(batch, shift, [1.0] * len(ids), float(lost.sum()), suffix, 1.0)
        weight = loss_config.entropy_weight if not part or loss_config.complement_entropy else 0.0

        def loss(weights: Any, rows: Any = rows, weight: float = weight) -> Any:
            network.update(tree_unflatten(list(weights.items())))
            return d3llm_loss(network, rows, loss_config, weight)

        (value, parts), grads = mx.value_and_grad(loss)(start)
        total += value.item()
        terms |= {key: float(term) for key, term in parts.items()}
        gradients = {key: gradients[key] + g for key, g in grads.items()}
    network.update(tree_unflatten(list(start.items())))

    for ours, theirs in (("ce", "ce_loss"), ("ce_rev", "ce_loss_rev"), ("entropy", "entropy_loss")):
        assert terms.get(ours, 0.0) == pytest.approx(case[theirs], abs=1e-4)
    if family == "dream":
        assert terms.get("entropy_rev", 0.0) == pytest.approx(case["entropy_loss_rev"], abs=1e-4)
    assert total == pytest.approx(case["total_loss"], abs=1e-4)
    ours = np.array(gradients["model.layers.0.self_attn.q_proj.weight"]).ravel()
    theirs = arrays[f"{name}_grad_q_proj0"].ravel()
    cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 1 - 1e-5
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_schedules(family: str) -> None:
    reference = REFERENCE[family]
    sizes = tuple(reference["cases"][0]["config"]["progressive_block_sizes"])
    for epoch, size in reference["block_size_schedule"]:
        assert block_size(sizes, epoch or 0.0) == size
    for step, steps, lowest in reference["mask_ratio_schedule"]:
        assert lowest_ratio(MaskingConfig(), step, steps) == pytest.approx(lowest, abs=1e-12)
    for ratio, start, end, states, index in reference["select_trajectory"]:
        assert moment(ratio, start, end, states) == index


def test_selection_within_the_segment_hides_the_specified_share() -> None:
    """The published index shows one token more than the ratio. Selection within the segment does not."""
    order = np.full(48, -1, np.int32)
    order[8:40] = np.random.default_rng(0).permutation(32)
    order[40:] = NEVER_SHOWN
    sequence = Sequence(np.zeros(48, np.int32), 8, 40, order, 32)
    for ratio, hidden in ((1.0, 16), (0.5, 8), (0.0, 0)):
        within = hidden_by_order(sequence, 8, 24, ratio, "segment")
        assert within.sum() == hidden
        shown = order[8:24][~within]
        assert not hidden or not len(shown) or shown.max() < order[8:24][within].min()
    assert hidden_by_order(sequence, 32, 48, 0.0, "segment")[8:].all()
    sequential = Sequence(sequence.ids, 8, 40, np.arange(-8, 40, dtype=np.int32).clip(-1), 32)
    assert hidden_by_order(sequential, 8, 24, 1.0, "published").sum() == 15
