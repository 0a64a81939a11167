"""The codes that a number may take: one class for weights and for what flows between layers, at every width.

In the backward pass the rounding is left out (a straight-through estimator), so that the scale's gradient is that of
learned step sizes (Esser et al. 2020): what rounding adds within the range, the last code beyond it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.core.params import WeightBits

TINIEST = 1e-12  # a scale


@dataclass(frozen=True)
class Levels:
    """lowest, lowest + step, ... highest."""

    lowest: int
    highest: int
    step: int = 1

    def __len__(self) -> int:
        return (self.highest - self.lowest) // self.step + 1


def of_weights(bits: WeightBits) -> Levels:
    """Symmetric, so that a channel may change its sign, but at two bits, where a fourth level is worth more."""
    special: dict[WeightBits, Levels] = {1: Levels(-1, 1, step=2), "ternary": Levels(-1, 1), 2: Levels(-2, 1)}
    return special.get(bits) or Levels(1 - 2 ** (int(bits) - 1), 2 ** (int(bits) - 1) - 1)


def of_activations(bits: int) -> Levels:
    """ONNX Runtime's fast kernels want them unsigned."""
    return Levels(0, 2**bits - 1)


class Grid(nn.Module):
    """Called as Brevitas calls a quantizer. `scale` has a number for each channel, or one for all.

    What a scale learns is by what factor it grows: optimizers that take steps of a given length, as Adam does, would
    tear the smallest scales apart and hardly move the largest; and a factor leaves them positive.
    """

    def __init__(self, levels: Levels, bits: int, scale: Tensor) -> None:
        super().__init__()
        self.levels, self.on = levels, True
        self.scale: Tensor
        self.zero: Tensor
        self.bits: Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.tensor(0.0))
        self.register_buffer("bits", torch.tensor(float(bits)), persistent=False)
        self.growth = nn.Parameter(torch.zeros_like(scale))  # its logarithm

    def set(self, scale: Tensor) -> None:
        self.scale = scale.clone()
        self.growth.data = torch.zeros_like(scale)

    @torch.no_grad()
    def settle(self) -> None:
        """What was learnt is what holds."""
        self.set(self.scale * self.growth.exp())

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale = self._broadcast(values)
        if not self.on:
            return values, scale, self.zero, self.bits
        place = (values / scale + self.zero).clamp(self.levels.lowest, self.levels.highest)
        code = place + (self._nearest(place) - place).detach()
        if self.levels.step > 1:  # without a code for zero, pruned weights would come back
            code = code * (values != 0)
        return (code - self.zero) * scale, scale, self.zero, self.bits

    @torch.no_grad()
    def codes(self, values: Tensor) -> Tensor:
        return torch.round(self(values)[0] / self._broadcast(values) + self.zero)

    def _nearest(self, place: Tensor) -> Tensor:
        lowest, step = self.levels.lowest, self.levels.step
        if step == 1:
            return torch.round(place)
        return lowest + step * ((place - lowest) / step + 0.5).floor().clamp(0, len(self.levels) - 1)

    def _broadcast(self, values: Tensor) -> Tensor:
        scale = self.scale * self.growth.exp()
        return scale.view(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale


def settle(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Grid):
            module.settle()
