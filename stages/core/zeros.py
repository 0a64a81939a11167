"""Weights of convolutions and linear layers that are exactly zero."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def weights(network: nn.Module) -> dict[str, Tensor]:
    """By the layer's path."""
    return {name: layer.weight for name, layer in network.named_modules() if isinstance(layer, PRODUCTS)}


def share(tensors: Iterable[Tensor]) -> float:
    tensors = list(tensors)
    return 1 - sum(int(tensor.count_nonzero()) for tensor in tensors) / sum(tensor.numel() for tensor in tensors)


def by_layer(network: nn.Module) -> dict[str, float]:
    return {name: share([weight]) for name, weight in weights(network).items()}


class Held:
    """A constraint: what is zero when a training begins stays zero, and nothing else in it notices."""

    def __init__(self, network: nn.Module) -> None:
        sparse = [weight for weight in weights(network).values() if (weight == 0).any()]
        self._weights, self._masks = sparse, [(weight != 0).to(weight.dtype) for weight in sparse]

    @torch.no_grad()
    def before(self) -> None:
        for weight, mask in zip(self._weights, self._masks, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    @torch.no_grad()
    def after(self, rate: float) -> None:
        for weight, mask in zip(self._weights, self._masks, strict=True):
            weight.mul_(mask)
