"""How much a channel matters, by torch-pruning's scorers. Contract: settings give a scorer of groups of channels.

Those that look at gradients find them in the network that is cut: of the loss on calibration pictures, in evaluation
mode, since that is how the network will answer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_pruning.pruner.importance import (
    BNScaleImportance,
    FPGMImportance,
    GroupHessianImportance,
    GroupMagnitudeImportance,
    GroupTaylorImportance,
    Importance,
    LAMPImportance,
    RandomImportance,
)

from stages.core import batches, params
from stages.core.batches import Pictures
from stages.core.running import progress

OWN_FILTER = "first"  # of the layers in a group, the one that makes the channel
NORMS = {"l1": 1, "l2": 2}

IMPORTANCES: Mapping[str, Callable[[Any], Importance]] = {
    "l1": lambda settings: GroupMagnitudeImportance(p=NORMS[settings.name], group_reduction=OWN_FILTER),
    "l2": lambda settings: GroupMagnitudeImportance(p=NORMS[settings.name], group_reduction=OWN_FILTER),
    "group_norm": lambda _: GroupMagnitudeImportance(p=2),
    "bn_scale": lambda _: BNScaleImportance(),
    "lamp": lambda _: LAMPImportance(),
    "fpgm": lambda _: FPGMImportance(group_reduction=OWN_FILTER),
    "taylor": lambda _: GroupTaylorImportance(multivariable=True),
    "hessian": lambda _: GroupHessianImportance(),
    "random": lambda _: RandomImportance(),
}

Gradients = Mapping[str, Tensor]


def gradients(
    network: nn.Module, settings: params.Importance | params.WeightImportance, pictures: Pictures
) -> Gradients:
    """Of the loss on the first so many pictures; for `hessian` the mean of their squares, picture by picture.

    torch-pruning's own sum of squares keeps the last picture's alone.
    """
    if not isinstance(settings, params.Taylor | params.Hessian | params.SNIP):
        return {}
    network.eval().requires_grad_(True)
    images, labels = _first(pictures, settings.pictures)
    if isinstance(settings, params.Taylor | params.SNIP):
        network.zero_grad()
        for some, their in zip(images.split(EACH), labels.split(EACH), strict=True):
            (functional.cross_entropy(network(some), their, reduction="sum") / len(images)).backward()
        found = _taken(network)
    else:
        sums: dict[str, Tensor] = {}
        for number in progress.track(range(len(images)), "squared gradients", len(images)):
            network.zero_grad()
            functional.cross_entropy(network(images[number : number + 1]), labels[number : number + 1]).backward()
            for name, gradient in _taken(network).items():
                sums[name] = sums.get(name, torch.zeros_like(gradient)) + gradient.square()
        found = {name: total / len(images) for name, total in sums.items()}
    network.zero_grad()
    return {name: gradient.cpu() for name, gradient in found.items()}


EACH = 64  # pictures of a pass


def lay(network: nn.Module, found: Gradients) -> None:
    """Where the scorers look for them."""
    for name, parameter in network.named_parameters():
        if name in found:
            parameter.grad = found[name].clone()


def _taken(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.detach().clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def _first(pictures: Pictures, count: int) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches.in_order(pictures), strict=True)
    return torch.cat(images)[:count], torch.cat(labels)[:count]
