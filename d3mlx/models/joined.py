"""Linear layers with the same input as one matrix product: a launch instead of two or three."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import accumulate

import mlx.core as mx
import mlx.nn as nn

from d3mlx.quantization import LayerQuantization

ARRAYS = ("weight", "scales", "biases", "bias")
"""Arrays of a linear layer, quantized or not, whose first axis is the output."""


class Joined:
    """Linear layers that share their input, and the layer that computes all of them at once.

    The layers remain modules of their own, so adapters, quantization and saving find them by name. Their arrays become
    views of the joint ones, so nothing is stored twice. A layer that was replaced or got another array since then ends
    the joint computation: the layers run one by one again. A change inside an array (`weight *= 2`, `weight[0] = 1`)
    cannot be noticed. To change weights, assign new arrays.
    """

    def __init__(self) -> None:
        self.whole: nn.Module | None = None
        self.views: list[dict[str, mx.array]] = []
        self.ends: list[int] = []

    def join(self, layers: Sequence[nn.Module]) -> None:
        """Join the weights of `layers`, unless they differ in kind, quantization or dtypes."""
        if len({kind_of(layer) for layer in layers}) != 1 or kind_of(layers[0]) is None:
            return
        whole = copy(layers[0])
        *self.ends, _ = accumulate(layer["weight"].shape[0] for layer in layers)
        for name in (name for name in ARRAYS if name in whole):
            whole[name] = mx.concatenate([layer[name] for layer in layers])
            for layer, part in zip(layers, mx.split(whole[name], self.ends), strict=True):
                layer[name] = part
        self.whole, self.views = whole, [dict(layer) for layer in layers]

    def __call__(self, x: mx.array, layers: Sequence[nn.Module]) -> list[mx.array]:
        """Return the output of each of `layers` for `x` [..., D]."""
        if self.whole is not None:
            if all(map(has_views, layers, self.views)):
                return list(mx.split(self.whole(x), self.ends, axis=-1))
            self.whole, self.views = None, []
        return [layer(x) for layer in layers]


def has_views(layer: nn.Module, views: dict[str, mx.array]) -> bool:
    """Return whether a layer has no other arrays than `views`."""
    return len(layer) == len(views) and all(layer.get(name) is view for name, view in views.items())


def kind_of(layer: nn.Module) -> tuple[object, ...] | None:
    """Return what layers must have in common to be joined; None for a layer that is not plainly linear."""
    if type(layer) not in (nn.Linear, nn.QuantizedLinear):
        return None
    quantization = LayerQuantization.of(layer) if isinstance(layer, nn.QuantizedLinear) else None
    arrays = {name: layer[name].dtype for name in ARRAYS if name in layer}
    return type(layer), quantization, layer["weight"].shape[1], tuple(arrays.items())
