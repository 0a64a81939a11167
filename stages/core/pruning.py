"""Channels that matter least are cut out of a network, physically, together with everything that hangs on them.

torch-pruning's dependency graph (Fang et al. 2023) finds which layers must shrink together. The last layer keeps its
outputs, and no layer loses more than nine tenths of its channels.
"""

import copy
from collections.abc import Callable, Mapping

import torch
import torch_pruning
from torch import nn
from torch_pruning.pruner.importance import GroupMagnitudeImportance, Importance, RandomImportance

from stages.core import counting, params
from stages.core.networks import families

DEEPEST_CUT = 0.9
BISECTIONS = 12

IMPORTANCES: Mapping[str, Callable[[], Importance]] = {
    "l1": lambda: GroupMagnitudeImportance(p=1),
    "l2": lambda: GroupMagnitudeImportance(p=2),
    "random": RandomImportance,
}


def shrink(network: nn.Module, settings: params.Prune, image_size: int, seed: int) -> nn.Module:
    """The narrower network whose share of removed parameters comes nearest to `settings.sparsity`."""
    if settings.sparsity == 0:
        return copy.deepcopy(network)
    dense = counting.parameters(network)

    def miss(candidate: nn.Module) -> float:
        return settings.sparsity - (1 - counting.parameters(candidate) / dense)

    low, high = 0.0, 1.0
    best = copy.deepcopy(network)
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        candidate = cut(network, ratio, settings, image_size, seed)
        if abs(miss(candidate)) < abs(miss(best)):
            best = candidate
        low, high = (ratio, high) if miss(candidate) > 0 else (low, ratio)
    return best


def cut(network: nn.Module, ratio: float, settings: params.Prune, image_size: int, seed: int) -> nn.Module:
    """A copy of the network without the least important `ratio` of its channels."""
    torch.manual_seed(seed)
    network = copy.deepcopy(network).cpu().requires_grad_(True)
    pruner = torch_pruning.BasePruner(
        network,
        torch.zeros(2, 3, image_size, image_size),
        importance=IMPORTANCES[settings.importance.name](),  # pyright: ignore[reportArgumentType]
        global_pruning=settings.ranking == "global",
        pruning_ratio=ratio,
        max_pruning_ratio=DEEPEST_CUT,
        round_to=settings.round_to,
        ignored_layers=[network.get_submodule(name) for name in families.heads(network)],
    )
    pruner.step()
    return network


def kept_channels(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Outputs of each layer before and after."""
    return {name: {"before": before[name], "after": count} for name, count in after.items()}
