"""Channels that matter least are cut out of a network, physically, together with everything that hangs on them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from stages.core import params
from stages.core.networks.artifact import Model
from stages.core.pruning import goals, graph, importances
from stages.core.pruning.goals import Goal
from stages.core.pruning.importances import Gradients
from stages.core.running.errors import Refusal

BISECTIONS = 12
BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class Plan:
    """For one network, however often it is cut: what is to shrink, and what must keep its channels."""

    settings: params.Prune
    goal: Goal
    kept: list[str]
    image_size: int
    seed: int


def plan(dense: Model, network: nn.Module, settings: params.Prune, seed: int) -> Plan:
    """What is gone is measured against the dense model; `network` is what is left of it after whole blocks went."""
    size = dense.card.facts.image_size
    kept = graph.unprunable(network, size, seed, settings.protect) if settings.sparsity else []
    return Plan(settings, goals.GOALS[settings.of](dense), kept, size, seed)


def shrink(network: nn.Module, sparsity: float, plan: Plan, gradients: Gradients) -> nn.Module:
    """The narrower network whose share of what is gone comes nearest to `sparsity`, of the network of the plan."""
    best = copy.deepcopy(network)
    miss = sparsity - plan.goal(best) if sparsity else 0.0
    if miss <= 0:  # nothing is asked for, or more is gone with whole blocks
        return best
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        candidate = cut(network, ratio, plan, gradients)
        missed = sparsity - plan.goal(candidate)
        if abs(missed) < abs(miss):
            best, miss = candidate, missed
        low, high = (ratio, high) if missed > 0 else (low, ratio)
    if abs(miss) > goals.MISSES[plan.settings.of]:
        raise Refusal(
            f"of this network's {plan.settings.of} {sparsity - miss:.1%} can be pruned, not {sparsity:.1%}: "
            f"{len(plan.kept)} layers must keep their channels; set prune.sparsity nearer to that, or prune.round_to "
            "smaller"
        )
    return best


def cut(network: nn.Module, ratio: float, plan: Plan, gradients: Gradients) -> nn.Module:
    """A copy of the network without the least important `ratio` of its channels, but for the layers that are kept."""
    torch.manual_seed(plan.seed)
    network = copy.deepcopy(network).cpu().requires_grad_(True)
    importances.lay(network, gradients)
    settings = plan.settings
    with graph.as_refusal(network):
        graph.pruner_of(
            network,
            plan.image_size,
            plan.kept,
            importance=importances.IMPORTANCES[settings.importance.name](settings.importance),
            global_pruning=settings.ranking != "layerwise",
            isomorphic=settings.ranking == "isomorphic",
            pruning_ratio=ratio,
            round_to=settings.round_to,
        ).step()
        network.zero_grad()
        with torch.no_grad():
            for batch in BATCHES:
                network.eval()(torch.zeros(batch, 3, plan.image_size, plan.image_size))
    return network


def kept_channels(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Outputs of each layer before and after; a layer that went with its block has none."""
    return {name: {"before": count, "after": after.get(name, 0)} for name, count in before.items()}
