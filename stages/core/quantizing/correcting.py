"""Rounding moves the mean of each channel and changes its spread; bias and scale can put that right.

The means are corrected by biases (Nagel et al. 2019). Scales correct the spread as BatchNorm would: few bits make layer
after layer quieter, or louder, and the codes need not be touched for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stages.core.quantized import inserting
from stages.core.quantized.inserting import value

FARTHEST = 4.0  # times that a scale may change: channels that are all but silent tell nothing of their spread


@dataclass(frozen=True)
class Moments:
    """Of each channel."""

    mean: Tensor
    square: Tensor

    @property
    def spread(self) -> Tensor:
        return (self.square - self.mean.square()).clamp(min=0).sqrt()

    def plus(self, other: "Moments", weight: float) -> "Moments":
        return Moments(self.mean + weight * other.mean, self.square + weight * other.square)


@torch.no_grad()
def correct(integer: nn.Module, merged: nn.Module, what: Literal["moments", "bias"], images: Sequence[Tensor]) -> None:
    """In place. What follows sees each layer as it is put right."""
    wanted: dict[str, Moments] = {}
    sums: dict[str, tuple[Moments, Moments]] = {}

    def notes(name: str) -> Any:
        return lambda layer, _, result: wanted.update({name: _moments(layer, result)})

    def corrects(name: str) -> Any:
        def hook(layer: Any, _: Any, result: Any) -> Tensor:
            values, aim = value(result), wanted[name]
            found = _moments(layer, values)
            none = Moments(torch.zeros_like(found.mean), torch.zeros_like(found.mean))
            before = sums.get(name, (none, none))
            share = len(values) / count
            sums[name] = before[0].plus(found, share), before[1].plus(aim, share)
            factor, shift = _change(found, aim, what)
            return values * _along(layer, factor, values) + _along(layer, shift, values)

        return hook

    count = sum(map(len, images))
    layers = dict(inserting.layers(integer))
    hooks = [merged.get_submodule(name).register_forward_hook(notes(name)) for name in layers]
    hooks += [layer.register_forward_hook(corrects(name)) for name, layer in layers.items()]
    for batch in images:
        merged(batch)
        integer(batch)
    for hook in hooks:
        hook.remove()
    for name, moments in sums.items():
        _apply(layers[name], *_change(*moments, what))


def _change(found: Moments, aim: Moments, what: Literal["moments", "bias"]) -> tuple[Tensor, Tensor]:
    """Factor and shift that give a channel the mean, and perhaps the spread, that it should have."""
    factor = torch.ones_like(found.mean)
    if what == "moments":
        told = (found.spread > 0) & (aim.spread > 0)
        factor = torch.where(told, aim.spread / found.spread.where(told, factor), factor)
        factor = factor.clamp(1 / FARTHEST, FARTHEST)
    return factor, aim.mean - factor * found.mean


def _apply(layer: Any, factor: Tensor, shift: Tensor) -> None:
    one = inserting.grid_of(layer.weight_quant)
    if one.scale.ndim:  # one scale for all channels is only ever asked for their means
        one.set(one.scale * factor)
        layer.weight.data = layer.weight * factor.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.bias.data = layer.bias * factor + shift


def _moments(layer: nn.Module, values: Tensor) -> Moments:
    """A linear layer has its channels last."""
    places = range(values.ndim - 1) if isinstance(layer, nn.Linear) else [0, *range(2, values.ndim)]
    return Moments(values.mean(dim=tuple(places)), values.square().mean(dim=tuple(places)))


def _along(layer: nn.Module, channels: Tensor, values: Tensor) -> Tensor:
    return channels if isinstance(layer, nn.Linear) else channels.view(-1, *[1] * (values.ndim - 2))
