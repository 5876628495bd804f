"""Tests of the optimizer of the teacher's build."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from d3mlx.distill.optimizer import Optimizer, OptimizerConfig, State
from d3mlx.research.muon import RMS, Muon, orthogonalized

CONFIG = OptimizerConfig(peak_rate=0.01, warmup=0, schedule="constant", weight_decay=0.0, average=0.5)
NAMES = ("model.layers.0.up.weight", "model.layers.0.down.weight", "model.embed.weight", "model.layers.0.norm.weight")


def arrays(seed: int) -> dict[str, mx.array]:
    shapes = ((48, 16), (16, 48), (32, 16), (16,))
    return {
        name: mx.random.normal(shape, key=mx.random.key(seed + i))
        for i, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))
    }


def test_matrices_keep_their_singular_vectors_and_have_singular_values_near_one() -> None:
    matrices = mx.random.normal((3, 24, 16), key=mx.random.key(0))
    for before, after in zip(np.array(matrices), np.array(orthogonalized(matrices)), strict=True):
        left, _, right = np.linalg.svd(before, full_matrices=False)
        aligned = left.T @ after @ right.T
        values = np.diag(aligned)
        assert ((values > 0.6) & (values < 1.3)).all()
        assert np.allclose(aligned, np.diag(values), atol=1e-3)


def test_only_matrices_of_layers_are_orthogonalized_and_a_step_reduces_the_loss() -> None:
    state, gradients = State.start(arrays(0)), arrays(10)
    ours, norm = Muon(CONFIG, 10)(state, gradients, 0)
    theirs, same_norm = Optimizer(CONFIG, 10)(state, gradients, 0)
    assert norm.item() == same_norm.item()
    for name in NAMES:
        change = np.array(ours.weights[name] - state.weights[name])
        if name in NAMES[:2]:
            assert 0.7 < np.sqrt(np.mean(change**2)) / (0.01 * RMS) < 1.3
            assert (change * np.array(gradients[name])).sum() < 0
            # The average of the first step has a tenth of the old weights.
            expected = 0.1 * np.array(state.weights[name]) + 0.9 * np.array(ours.weights[name])
            assert np.allclose(ours.average[name], expected, atol=1e-6)
        else:
            assert np.array_equal(ours.weights[name], theirs.weights[name])
    assert ours.flat().keys() == state.flat().keys()
