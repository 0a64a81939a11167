"""Which channels can go together, and which of them at all.

torch-pruning's dependency graph (Fang et al. 2023) finds which layers must shrink together. It does not understand
every network, so each group of layers is tried first: channels may go only where a network without them answers as one
in which they are silent. The last layer keeps its outputs.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner.importance import GroupMagnitudeImportance, RandomImportance

from stages.core.networks import families
from stages.core.objectives.listening import find
from stages.core.running.errors import Refusal

DEEPEST_CUT = 0.9
TRIED_SHARE = 0.5  # of a group's channels
SAME = 1e-4  # of the largest answer
MASKABLE = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)

# what networks and torch-pruning raise where channels are missing or a graph is none that it knows
BROKEN = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError, KeyError, ZeroDivisionError)


def unprunable(network: nn.Module, image_size: int, seed: int, protected: Sequence[str] = ()) -> list[str]:
    """The layers that give the logits or are protected, and one of each group whose channels cannot go unharmed."""
    torch.manual_seed(seed)
    network = _lively(copy.deepcopy(network).cpu().requires_grad_(True), image_size)
    for name in protected:
        find(network, name, "the network")
    kept, harmless = [*families.heads(network), *protected], set[str]()
    while harmful := _harmful_group(copy.deepcopy(network), image_size, kept, harmless):
        kept.append(harmful)
    return kept


def _harmful_group(network: nn.Module, image_size: int, kept: list[str], harmless: set[str]) -> str | None:
    """The first group, by the layer it starts from, that is not yet known to be harmless, and is not."""
    pictures = torch.randn(2, 3, image_size, image_size)
    names = {module: name for name, module in network.named_modules()}
    with as_refusal(network):
        pruner = pruner_of(network, image_size, kept, importance=RandomImportance(), pruning_ratio=TRIED_SHARE)
        if misread := _misread_group(pruner, names):
            return misread
        for group in pruner.step(interactive=True) or ():
            name = names[group[0].dep.target.module]
            if name not in harmless:
                try:
                    with torch.no_grad():
                        with _silence(group, pruner.DG):
                            silent = network(pictures)
                        group.prune()
                        removed = network(pictures)
                except BROKEN:
                    return name
                if (silent - removed).abs().max() > SAME * silent.abs().max():
                    return name
                harmless.add(name)
    return None


def _misread_group(pruner: torch_pruning.BasePruner, names: Mapping[nn.Module, str]) -> str | None:
    """A group that names channels which its layers do not have, so that no importance can be told."""
    groups = pruner.DG.get_all_groups(pruner.ignored_layers, tuple(pruner.root_module_types))
    for group in groups:
        try:
            GroupMagnitudeImportance()(group)
        except BROKEN:
            return names[group[0].dep.target.module]
    return None


def pruner_of(network: nn.Module, image_size: int, kept: list[str], **options: Any) -> torch_pruning.BasePruner:
    return torch_pruning.BasePruner(
        network,
        torch.zeros(2, 3, image_size, image_size),
        max_pruning_ratio=DEEPEST_CUT,
        ignored_layers=[network.get_submodule(name) for name in kept],
        **options,
    )


def _lively(network: nn.Module, image_size: int) -> nn.Module:
    """Other numbers in the network, none of which hides what a channel does, as the zeros of a fresh one would."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for parameter in network.parameters():
        if parameter.ndim < 2:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(4, 3, image_size, image_size))
    return network.eval()


@contextmanager
def _silence(group: Any, graph: Any) -> Iterator[None]:
    """The channels of a group give nothing, and nothing is read where they are."""
    hooks = []
    for dependency, channels in group:
        module = dependency.target.module
        if isinstance(module, nn.Module) and isinstance(module, MASKABLE):
            if graph.is_out_channel_pruning_fn(dependency.handler):
                hooks.append(module.register_forward_hook(_output_masked(channels)))
            else:
                hooks.append(module.register_forward_pre_hook(_input_masked(channels)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _output_masked(channels: list[int]) -> Callable[..., Tensor]:
    return lambda module, _, result: _masked(module, result, channels)


def _input_masked(channels: list[int]) -> Callable[..., tuple[Tensor, ...]]:
    return lambda module, given: (_masked(module, given[0], channels), *given[1:])


def _masked(module: nn.Module, values: Tensor, channels: list[int]) -> Tensor:
    return values.index_fill(-1 if isinstance(module, nn.Linear) else 1, torch.tensor(channels), 0.0)


@contextmanager
def as_refusal(network: nn.Module) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        name = type(network).__name__
        raise Refusal(
            f"torch-pruning cannot prune {name} ({type(error).__name__}: {reason}); set prune.sparsity to 0"
        ) from error
