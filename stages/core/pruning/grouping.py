"""Which numbers of a network belong to which channel, over all layers that must shrink together."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch_pruning.pruner.importance import RandomImportance

from stages.core.pruning import graph

OWNERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Slice:
    """Of a tensor, along a dimension: the places, and the channel that each of them belongs to."""

    tensor: str
    dimension: int
    places: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Named by the layer that makes the channels."""

    name: str
    slices: tuple[Slice, ...]


def groups(network: nn.Module, image_size: int, kept: list[str]) -> list[Group]:
    """Those of which channels may go."""
    network = copy.deepcopy(network).cpu().requires_grad_(True)
    names = {module: name for name, module in network.named_modules()}
    with graph.as_refusal(network):
        pruner = graph.pruner_of(network, image_size, kept, importance=RandomImportance())
        found = list(pruner.DG.get_all_groups(pruner.ignored_layers, tuple(pruner.root_module_types)))
    return [
        Group(
            names[group[0].dep.target.module], tuple(part for item in group for part in _slices(item, names, pruner.DG))
        )
        for group in found
    ]


def _slices(item: Any, names: dict[nn.Module, str], found: Any) -> Iterator[Slice]:
    """None where a layer mixes channels so that no row or column is one channel's own."""
    layer, makes = item.dep.target.module, found.is_out_channel_pruning_fn(item.dep.handler)
    if not isinstance(layer, OWNERS) or None in item.root_idxs:
        return
    if not makes and getattr(layer, "groups", 1) > 1:
        return
    places, channels = tuple(item.idxs), tuple(item.root_idxs)
    for key in ("weight", "bias") if makes else ("weight",):
        if getattr(layer, key) is not None:
            yield Slice(f"{names[layer]}.{key}", 0 if makes else 1, places, channels)
