"""A mixture of experts in place of an MLP: a router, many small MLPs of which each row uses a few, and a shared one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import SwitchGLU


@dataclass(frozen=True)
class Experts:
    """Sizes of a mixture of experts.

    count: number of experts. chosen: experts per row. width: of an expert's MLP. shared: width of the MLP that every
    row uses; 0 for none. groups: the experts are divided into this many. chosen_groups: number of groups in which a row
    may choose experts. scale: factor of the weights. dense: number of first layers that have a plain MLP instead.
    """

    count: int
    chosen: int
    width: int
    shared: int
    groups: int
    chosen_groups: int
    scale: float
    dense: int

    def distinct(self, rows: float) -> float:
        """Return the expected number of experts that a forward of `rows` rows uses, if all are equally likely."""
        return float(self.count * (1 - (1 - self.chosen / self.count) ** rows))


class Router(nn.Module):
    """The choice of experts (LLaDA2.0 report; DeepSeek-V3, arXiv 2412.19437, auxiliary-loss-free load balancing).

    It runs in float32, and nothing quantizes it, because small differences change the choice.
    """

    def __init__(self, experts: Experts, hidden: int):
        super().__init__()
        self.experts = experts
        self.weight = mx.random.normal((experts.count, hidden)) * hidden**-0.5
        self.expert_bias = mx.zeros(experts.count)

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Return the experts of each row, int [..., chosen], and their weights, float32 [..., chosen]. x: [..., D]."""
        of = self.experts
        scores = mx.sigmoid(x.astype(mx.float32) @ self.weight.astype(mx.float32).T)
        # The bias balances the load of experts: it changes the choice and not the weights.
        choice = self.in_best_groups(scores + self.expert_bias.astype(mx.float32))
        # An index has no gradient.
        chosen = mx.stop_gradient(mx.argpartition(-choice, of.chosen - 1, axis=-1)[..., : of.chosen])
        weights = mx.take_along_axis(scores, chosen, axis=-1)
        return chosen, of.scale * weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)

    def in_best_groups(self, choice: mx.array) -> mx.array:
        """Return scores [..., E] with -inf outside the groups with the highest sums of their two best scores.

        A biased score can be negative, so 0 instead of -inf could win.
        """
        of = self.experts
        grouped = mx.unflatten(choice, -1, (of.groups, -1))
        sums = mx.topk(grouped, min(2, grouped.shape[-1]), axis=-1).sum(axis=-1)
        best = mx.argpartition(-sums, of.chosen_groups - 1, axis=-1)[..., : of.chosen_groups]
        kept = mx.put_along_axis(mx.zeros(sums.shape, mx.bool_), best, mx.array(True), axis=-1)
        return mx.where(kept[..., None], grouped, -mx.inf).flatten(-2)


class MoE(nn.Module):
    """A router, its experts, and a shared MLP.

    shared: the MLP that every row uses, or None. swiglu: the activation of two arrays, gate and up.
    """

    def __init__(self, experts: Experts, hidden: int, shared: nn.Module | None, swiglu: Any):
        super().__init__()
        self.gate = Router(experts, hidden)
        # mlx-lm calls the activation with up before gate.
        self.switch_mlp = SwitchGLU(hidden, experts.width, experts.count, activation=lambda up, gate: swiglu(gate, up))
        if shared is not None:
            self.shared_experts = shared

    def join(self) -> None:
        """Compute gate and up of the shared MLP as one product from now on."""
        if "shared_experts" in self:
            self.shared_experts.join()

    def __call__(self, x: mx.array) -> mx.array:
        """Return the weighted experts of each row, plus the shared MLP. x: [B, R, D], like the result."""
        chosen, weights = self.gate(x)
        out = (self.switch_mlp(x, chosen) * weights[..., None]).sum(axis=-2).astype(x.dtype)
        return out + self.shared_experts(x) if "shared_experts" in self else out
