"""The choice of experts, compared with the reference, and the layers of a mixture."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.errors import CheckpointError
from d3mlx.models import llada2_moe, missing_fields
from d3mlx.models.experts import Experts, Router
from tests.golden.cases import FOLDER, model
from tests.replicas import LLADA2_CONFIG

DATA: Any = np.load(FOLDER / "llada2_moe" / "logits.npz")


def chosen(router: Router, x: mx.array) -> tuple[Any, Any]:
    """Return the experts of each row in ascending order, and their weights."""
    experts, weights = (np.array(part) for part in router(x))
    order = experts.argsort(axis=1)
    return np.take_along_axis(experts, order, axis=1), np.take_along_axis(weights, order, axis=1)


@pytest.mark.parametrize("layer", [1, 2])
def test_the_router_chooses_as_the_reference(layer: int) -> None:
    moe, x = model("llada2_moe").layers[layer].mlp, mx.array(DATA[f"gate_{layer}_x"])
    order = DATA[f"gate_{layer}_idx"].argsort(axis=1)
    expected = np.take_along_axis(DATA[f"gate_{layer}_idx"], order, axis=1)
    experts, weights = chosen(moe.gate, x)
    assert (experts == expected).all()
    assert np.abs(weights - np.take_along_axis(DATA[f"gate_{layer}_weight"], order, axis=1)).max() < 1e-5
    assert np.abs(np.array(moe(x[None]))[0] - DATA[f"gate_{layer}_moe_out"]).max() < 1e-4
    # Zeros instead of -inf let experts of excluded groups win, because biased scores can be negative.
    trap = DATA[f"gate_{layer}_trap"].astype(bool)
    assert trap.sum() > 10
    router = WithZeros(moe.gate.experts, x.shape[1])
    router.update(moe.gate.parameters())
    assert ((chosen(router, x)[0] != expected).any(axis=1) == trap).all()


class WithZeros(Router):
    """A router with the defect of another implementation."""

    def in_best_groups(self, choice: mx.array) -> mx.array:
        kept = super().in_best_groups(choice)
        return mx.where(kept == -mx.inf, 0.0, kept)


def test_the_choice_is_made_in_float32() -> None:
    """In bfloat16, the scores of many experts would be equal."""
    router = Router(Experts(64, 4, 8, 0, 4, 2, 1.0, 0), 32)
    router.expert_bias = mx.random.normal((64,), key=mx.random.key(1)) * 1e-3
    x = mx.random.normal((50, 32), key=mx.random.key(2)) * 1e-3
    router.weight = router.weight.astype(mx.bfloat16)
    halves = chosen(router, x.astype(mx.bfloat16))[0]
    router.weight = router.weight.astype(mx.float32)
    assert (halves == chosen(router, x.astype(mx.bfloat16).astype(mx.float32))[0]).all()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another score": ({"score_function": "softmax"}, "score_function = 'softmax'"),
    "no bias": ({"moe_router_enable_expert_bias": False}, "moe_router_enable_expert_bias = False"),
    "no norm": ({"use_qk_norm": False}, "use_qk_norm = False"),
    "groups": ({"n_group": 5}, "num_experts 16 in topk_group 2 of n_group 5"),
    "too few experts in groups": ({"num_experts_per_tok": 9}, "num_experts_per_tok 9"),
    "too many groups": ({"topk_group": 5}, "topk_group 5 of n_group 4"),
    "no experts": ({"num_experts": 0}, "num_experts 0"),
    "a part of a number": ({"partial_rotary_factor": 0.1}, "partial_rotary_factor = 0.1"),
    "too many dense layers": ({"first_k_dense_replace": 3}, "first_k_dense_replace 3"),
    "heads": ({"num_attention_heads": 5}, "num_attention_heads 5"),
    "block": ({"block_size": 0}, "block_size = 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_unsupported_values_are_refused_by_name(name: str) -> None:
    changes, culprit = WRONG[name]
    with pytest.raises(CheckpointError) as caught:
        llada2_moe.ModelArgs.from_dict(LLADA2_CONFIG | changes)
    assert culprit in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_mask_token_of_the_published_vocabulary_is_known() -> None:
    config = {name: value for name, value in LLADA2_CONFIG.items() if name != "mask_token_id"}
    assert missing_fields(config | {"vocab_size": 157184}, []) == {"mask_token_id": 156895}
    assert missing_fields(config, []) == {}
    assert missing_fields(LLADA2_CONFIG | {"vocab_size": 157184}, []) == {}
