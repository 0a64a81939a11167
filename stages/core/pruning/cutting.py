"""Channels that matter least are cut out of a network, physically, together with everything that hangs on them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from stages.core import params
from stages.core.networks.artifact import Model
from stages.core.objectives.listening import find
from stages.core.pruning import goals, graph, grouping, heads, importances, protection, sensitivity
from stages.core.pruning.goals import Goal
from stages.core.pruning.importances import Gradients
from stages.core.pruning.sensitivity import Judge, Tried
from stages.core.running.errors import Refusal

BISECTIONS = 12
BATCHES = (1, 2, 5)

Shares = float | Mapping[str, float]  # of channels, or of those of each layer


@dataclass(frozen=True)
class Plan:
    """For one network, however often it is cut: what is to shrink, and what must keep its channels."""

    settings: params.Prune
    goal: Goal
    kept: list[str]
    attentions: list[str]
    image_size: int
    seed: int
    tried: Sequence[Tried] = ()

    def shares(self, level: float) -> Shares:
        return sensitivity.shares(self.tried, level) if self.settings.ranking == "sensitivity" else level


def plan(dense: Model, network: nn.Module, settings: params.Prune, seed: int) -> Plan:
    """What is gone is measured against the dense model; `network` is what is left of it after whole blocks went."""
    size = dense.card.facts.image_size
    for name in settings.protect:
        find(network, name, "the network")
    kept, attentions = list[str](), list[str]()
    if settings.sparsity or settings.scan or settings.lasso:
        kept = graph.unprunable(network, size, seed, settings.protect)
    if (settings.sparsity or settings.scan) and settings.attention != "kept":
        free = heads.prunable(network, size, seed, settings.attention)
        attentions = [name for name in free if not protection.touches(settings.protect, name)]
    return Plan(settings, goals.GOALS[settings.of](dense), kept, attentions, size, seed)


def scan(network: nn.Module, plan: Plan, gradients: Gradients, judge: Judge) -> Plan:
    """The plan, with what its layers bear."""
    names = [group.name for group in grouping.groups(network, plan.image_size, plan.kept)] + plan.attentions
    layers = [name for name, _ in network.named_modules() if name in names]
    tried = sensitivity.scan(layers, plan.settings.scan, lambda shares: cut(network, shares, plan, gradients), judge)
    return replace(plan, tried=tried)


def shrink(network: nn.Module, sparsity: float, plan: Plan, gradients: Gradients, must_reach: bool = True) -> nn.Module:
    """The narrower network whose share of what is gone comes nearest to `sparsity`, of the network of the plan."""
    best = copy.deepcopy(network)
    miss = sparsity - plan.goal(best) if sparsity else 0.0
    if miss <= 0:  # nothing is asked for, or more is gone with whole blocks
        return best
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        level = (low + high) / 2
        candidate = cut(network, plan.shares(level), plan, gradients)
        missed = sparsity - plan.goal(candidate)
        if abs(missed) < abs(miss):
            best, miss = candidate, missed
        low, high = (level, high) if missed > 0 else (low, level)
    if must_reach and abs(miss) > goals.MISSES[plan.settings.of]:
        raise Refusal(
            f"{sparsity:.1%} of this network's {plan.settings.of} cannot be pruned, {sparsity - miss:.1%} comes "
            f"nearest: {len(plan.kept)} layers must keep their channels; set prune.sparsity nearer to that, "
            "prune.round_to smaller, or fewer prune.steps"
        )
    return best


def cut(network: nn.Module, shares: Shares, plan: Plan, gradients: Gradients) -> nn.Module:
    """A copy of the network without the least important channels and heads, but for the layers that are kept."""
    torch.manual_seed(plan.seed)
    network = copy.deepcopy(network).cpu().requires_grad_(True)
    importances.lay(network, gradients)
    settings = plan.settings
    share, of_heads, of_layers = 0.0, shares, dict[nn.Module, float]()
    if isinstance(shares, Mapping):
        of_heads = {name: shares.get(name, 0.0) for name in plan.attentions}
        of_layers = {network.get_submodule(name): own for name, own in shares.items() if name not in of_heads}
    else:
        share = shares
    heads.cut(network, plan.attentions, of_heads, settings)
    with graph.as_refusal(network):
        graph.pruner_of(
            network,
            plan.image_size,
            plan.kept,
            importance=importances.IMPORTANCES[settings.importance.name](settings.importance),
            global_pruning=settings.ranking in ("global", "isomorphic") and not of_layers,
            isomorphic=settings.ranking == "isomorphic" and not of_layers,
            pruning_ratio=share,
            pruning_ratio_dict=of_layers,
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


def kept_heads(
    before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, dict[str, int]]]:
    """Of each attention its heads, and the dimensions that each of them has."""
    return {
        name: {key: {"before": count, "after": after.get(name, {}).get(key, 0)} for key, count in counts.items()}
        for name, counts in before.items()
    }
