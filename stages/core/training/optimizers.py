"""Optimizers and the schedule. Contract: settings and groups of parameters give a torch optimizer."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from stages.core import params

Groups = list[dict[str, Any]]


def sgd(settings: params.SGD, groups: Groups) -> Optimizer:
    return torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


def adamw(settings: params.AdamW, groups: Groups) -> Optimizer:
    return torch.optim.AdamW(groups, lr=settings.rate)


OPTIMIZERS: Mapping[str, Callable[[Any, Groups], Optimizer]] = {"sgd": sgd, "adamw": adamw}


def build(settings: params.SGD | params.AdamW, network: nn.Module) -> Optimizer:
    """Norms and biases do not decay: they have no scale that would need it."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[settings.name](settings, groups)


def rate_share(step: int, steps: int, warm_up: int) -> float:
    """Share of the full rate: linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2016)."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
