"""Optimizers. Contract: settings and groups of parameters give a torch optimizer whose state is tensors.

Libraries are imported where an optimizer of theirs is built: they take seconds.
"""

import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from stages.core import params
from stages.core.networks import families
from stages.core.objectives.contract import Objective

Groups = list[dict[str, Any]]
HIDDEN = "use_muon"  # the name that pytorch-optimizer has for a group of hidden weights


def sgd(settings: params.SGD, groups: Groups) -> Optimizer:
    return torch.optim.SGD(
        groups, lr=settings.rate, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True
    )


def adam(settings: params.Adam, groups: Groups) -> Optimizer:
    return torch.optim.Adam(groups, lr=settings.rate, fused=True)


def adamw(settings: params.AdamW, groups: Groups) -> Optimizer:
    return torch.optim.AdamW(groups, lr=settings.rate, fused=True)


def adamw_8bit(settings: params.Adam8bit, groups: Groups) -> Optimizer:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses kernels of its own that are for 4 bits
    from bitsandbytes.optim.adamw import AdamW8bit

    return AdamW8bit(groups, lr=settings.rate)


def shampoo(settings: params.Shampoo, groups: Groups) -> Optimizer:
    import pytorch_optimizer

    return pytorch_optimizer.Shampoo(
        groups,
        lr=settings.rate,
        momentum=settings.momentum,
        weight_decouple=True,
        preconditioning_compute_steps=settings.every,
    )


def muon(settings: params.Muon, groups: Groups) -> Optimizer:
    """The library's own AdamW moves what is not hidden."""
    import pytorch_optimizer

    for group in groups:
        group["lr"] = settings.rate if group[HIDDEN] else settings.others_rate
    return pytorch_optimizer.Muon(groups, momentum=settings.momentum)


OPTIMIZERS: Mapping[str, Callable[[Any, Groups], Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "adamw_8bit": adamw_8bit,
    "shampoo": shampoo,
    "muon": muon,
}


def build(settings: params.Optimizer, network: nn.Module, objective: Objective) -> Optimizer:
    """Norms and biases do not decay: they have no scale that would need it. Each group keeps its `full_rate`.

    What a loss learns is moved too, whole networks in it as the network is.
    """
    networks = (network, *objective.peers())
    peers = {id(weight) for peer in objective.peers() for weight in peer.parameters()}
    beside = _by_shape(objective, without=peers)
    if settings.name == "muon":
        groups = [group for one in networks for group in _for_muon(one)]
        groups += [group | {HIDDEN: False} for group in beside]
    else:
        groups = [group for one in networks for group in _by_shape(one)] + beside
    for group in groups:
        group["weight_decay"] = settings.weight_decay if group.pop("decays") else 0.0
    optimizer = OPTIMIZERS[settings.name](settings, [group for group in groups if group["params"]])
    for group in optimizer.param_groups:
        group["full_rate"] = group["lr"]
    return optimizer


def set_rate(optimizer: Optimizer, share: float) -> float:
    """The first group's rate is the one that is told."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_rate"] * share
    return optimizer.param_groups[0]["lr"]


def _by_shape(network: nn.Module, without: AbstractSet[int] = frozenset()) -> Groups:
    """What a network says should not decay, such as positions in a vision transformer, does not either."""
    told = getattr(network, "no_weight_decay", set)()
    weights = [(name, weight) for name, weight in network.named_parameters() if id(weight) not in without]
    learning = [(name, weight) for name, weight in weights if weight.requires_grad]
    decaying = [weight for name, weight in learning if weight.ndim > 1 and name not in told]
    still = [weight for name, weight in learning if weight.ndim <= 1 or name in told]
    return [{"params": decaying, "decays": True}, {"params": still, "decays": False}]


def _for_muon(network: nn.Module) -> Groups:
    """Hidden weights are those of layers between the first and the last."""
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    ends = {layers[0][0], *families.heads(network)}
    hidden = [module.weight for name, module in layers if name not in ends and module.weight.requires_grad]
    chosen = {id(weight) for weight in hidden}
    others = _by_shape(network)
    for group in others:
        group["params"] = [weight for weight in group["params"] if id(weight) not in chosen]
        group[HIDDEN] = False
    return [{"params": hidden, "decays": True, HIDDEN: True}, *others]
