"""Training that draws whole channels to zero, so that cutting them costs little (group lasso, Yuan and Lin 2006).

After each step of the optimizer the norm of each channel, over all layers that it goes through, shrinks by a constant.
This proximal step gives true zeros with any optimizer and any loss (Deleu and Bengio 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.pruning.grouping import Group, Slice

TINY = 1e-30


@dataclass(frozen=True)
class _Part:
    tensor: Tensor
    dimension: int
    places: Tensor
    channels: Tensor

    def squares(self) -> Tensor:
        """Of each place."""
        return self.tensor.transpose(0, self.dimension).flatten(1).square().sum(1)[self.places]

    def shrink(self, shares: Tensor) -> None:
        """To those shares of each channel."""
        whole = torch.ones(self.tensor.shape[self.dimension], device=self.tensor.device)
        whole[self.places] = shares[self.channels]
        shape = [1] * self.tensor.ndim
        shape[self.dimension] = -1
        self.tensor.mul_(whole.view(shape))


class Lasso:
    """A constraint. A group counts by the root of its size, so that the root mean square of every channel shrinks by
    rate x strength."""

    def __init__(self, network: nn.Module, settings: params.Lasso, groups: Sequence[Group]) -> None:
        self._strength = settings.strength
        tensors = dict(network.named_parameters())
        self._groups = [[_part(tensors[one.tensor], one) for one in group.slices] for group in groups if group.slices]

    def before(self) -> None:
        pass

    @torch.no_grad()
    def after(self, rate: float) -> None:
        for parts in self._groups:
            device = parts[0].tensor.device
            squares = torch.zeros(1 + max(int(part.channels.max()) for part in parts), device=device)
            counts = torch.zeros_like(squares)
            for part in parts:
                squares.index_add_(0, part.channels, part.squares())
                each = part.tensor.numel() // part.tensor.shape[part.dimension]
                counts.index_add_(0, part.channels, torch.full_like(part.channels, each, dtype=counts.dtype))
            shares = (1 - rate * self._strength * counts.sqrt() / squares.sqrt().clamp(min=TINY)).clamp(min=0)
            for part in parts:
                part.shrink(shares)


def _part(tensor: nn.Parameter, found: Slice) -> _Part:
    places, channels = (torch.tensor(numbers, device=tensor.device) for numbers in (found.places, found.channels))
    return _Part(tensor.data if tensor.ndim > 1 else tensor.data[:, None], found.dimension, places, channels)
