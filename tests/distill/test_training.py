"""Tests of the supervised objective, of resumed training, and of the curriculum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from d3mlx.distill.optimizer import OptimizerConfig
from d3mlx.distill.trainer import TrainConfig, Trainer, load_checkpoint
from d3mlx.models import llada
from d3mlx.research.batches import Batch
from d3mlx.research.builds.curriculum import Curriculum
from d3mlx.research.supervised import Supervised, mask_batch, masked_loss

TINY: dict[str, Any] = {
    "model_type": "llada",
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "mlp_hidden_size": 48,
    "vocab_size": 20,
    "mask_token_id": 19,
    "eos_token_id": 18,
}


def tiny_model(seed: int = 0) -> llada.Model:
    mx.random.seed(seed)
    model = llada.Model(llada.ModelArgs.from_dict(TINY))
    mx.eval(model.parameters())
    return model


def tiny_batch(index: int) -> Batch:
    rng = np.random.default_rng(index)
    weights = np.zeros((4, 12), np.float32)
    weights[:, 5:] = 1
    weights[:, 9:] = 0.1
    return Batch(rng.integers(0, 18, (4, 12)).astype(np.int32), weights)


def test_only_answers_are_masked() -> None:
    batch = tiny_batch(0)
    masked = mask_batch(batch, 19, np.random.default_rng(0))
    hidden = np.array(masked.ids) == 19
    assert hidden.any()
    assert not hidden[batch.weights == 0].any()
    real = np.array(masked.weights) > 0
    assert sorted(np.array(masked.rows)[real].tolist()) == np.flatnonzero(hidden).tolist()
    assert np.array(masked.targets)[real].tolist() == batch.ids.flat[np.flatnonzero(hidden)].tolist()


def test_every_batch_hides_at_least_one_token() -> None:
    weights = np.zeros((1, 50), np.float32)
    weights[0, 40] = 1
    batch = Batch(np.zeros((1, 50), np.int32), weights)
    for seed in range(20):
        masked = mask_batch(batch, 19, np.random.default_rng(seed))
        assert np.array(masked.rows)[np.array(masked.weights) > 0].tolist() == [40]


def test_the_loss_is_the_weighted_mean_over_hidden_positions() -> None:
    model, batch = tiny_model(), tiny_batch(1)
    masked = mask_batch(batch, 19, np.random.default_rng(5))
    logits = np.array(model(masked.ids)).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows, columns = np.nonzero(np.array(masked.ids) == 19)
    losses = -np.log(probabilities[rows, columns, batch.ids[rows, columns]])
    weights = batch.weights[rows, columns]
    assert masked_loss(model, masked).item() == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3])
def test_the_mean_loss_of_all_parts_is_that_of_the_batch(parts: int) -> None:
    model, batch = tiny_model(), tiny_batch(1)
    masked = [mask_batch(batch, 19, np.random.default_rng(5), part, parts) for part in range(parts)]
    assert sum(len(part.ids) for part in masked) == 4
    mean = sum(masked_loss(model, part).item() for part in masked) / parts
    assert mean == pytest.approx(masked_loss(model, mask_batch(batch, 19, np.random.default_rng(5))).item(), rel=1e-5)


def weights_after(folder: Path, *stops: int | None) -> dict[str, Any]:
    """Return the weights after 12 steps. Each stop is a call with a new trainer that resumes the run."""
    plan = TrainConfig(steps=12, save_every=4, optimizer=OptimizerConfig(warmup=2))
    for i, stop in enumerate(stops):
        model = tiny_model()
        Trainer(model, Supervised(tiny_batch, 19), plan, folder).run(resume=i > 0, stop_after=stop)
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    complete = weights_after(tmp_path / "complete", None)
    resumed = weights_after(tmp_path / "resumed", 3, 5, None)
    # On a CPU the results are identical. A GPU does not guarantee the order of sums.
    limit = 0.0 if mx.default_device() == mx.Device(mx.cpu) else 1e-6
    assert max(np.abs(complete[name] - resumed[name]).max() for name in complete) <= limit
    state, step = load_checkpoint(tmp_path / "resumed") or (None, 0)
    assert step == 12
    assert state is not None
    assert not any(path.name.startswith(".partial") for path in (tmp_path / "resumed").iterdir())
    start = {name: np.array(value) for name, value in tree_flatten(tiny_model().parameters())}
    assert any((complete[name] != start[name]).any() for name in complete)


def test_processes_exchange_arrays_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process resumes a checkpoint, which lists its arrays by name. The others list those of the model."""
    plan = TrainConfig(steps=4, save_every=2, optimizer=OptimizerConfig(warmup=2))
    Trainer(tiny_model(), Supervised(tiny_batch, 19), plan, tmp_path).run(stop_after=2)
    orders = []
    for resume in (True, False):
        shapes: list[tuple[int, ...]] = []
        monkeypatch.setattr(mx.distributed, "all_sum", lambda x, shapes=shapes: shapes.append(x.shape) or x)
        trainer = Trainer(tiny_model(), Supervised(tiny_batch, 19), plan, tmp_path)
        state, _ = trainer.from_first(*trainer.own_state(resume))
        orders.append((shapes, list(state.weights)))
    assert orders[0] == orders[1]
    assert len(set(orders[0][0])) > 3


def test_the_curriculum_has_phases() -> None:
    class Recorder:
        seed = 0

        def recall(self, step: int) -> str:
            return "recall"

        def drills(self, step: int, chained: bool) -> str:
            return "chained" if chained else "drills"

        def continued(self, step: int, operations: int) -> str:
            return "continued"

        def blocks(self, step: int, operations: int) -> str:
            return "blocks"

        def worked(self, step: int, operations: int) -> str:
            return "worked"

        def problems(self, step: int, operations: int) -> int:
            return operations

    def kinds(start: int, end: int) -> set[Any]:
        return {Curriculum().batch(Recorder(), step) for step in range(start, end)}  # type: ignore[arg-type]

    assert kinds(0, 700) == {"recall"}
    assert kinds(700, 2000) == {"chained", 2}
    assert kinds(5000, 5200) == {"drills", 4}
    assert kinds(17000, 17200) == {"drills", "continued", "blocks", "worked", 4}
