"""Which channels can go together, and which of them at all.

torch-pruning's dependency graph (Fang et al. 2023) finds which layers must shrink together. It does not understand
every network, so each group of layers is tried first: channels may go only where a network without them answers as one
in which they are silent. The last layer keeps its outputs.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner.importance import GroupMagnitudeImportance, RandomImportance

from stages.core.networks import families
from stages.core.objectives.listening import find
from stages.core.pruning import tracing
from stages.core.pruning.tracing import BROKEN
from stages.core.running.errors import Refusal

DEEPEST_CUT = 0.9
TRIED_SHARE = 0.5  # of a group's channels
SAME = 1e-4  # of the largest answer
MASKABLE = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)


def unprunable(network: nn.Module, image_size: int, seed: int, protected: Sequence[str] = ()) -> list[str]:
    """The layers that give the logits or are protected, and one of each group whose channels cannot go unharmed."""
    torch.manual_seed(seed)
    network = lively(copy.deepcopy(network).cpu().requires_grad_(True), image_size)
    for name in protected:
        find(network, name, "the network")
    kept = [*families.heads(network), *protected]
    with as_refusal(network):
        while misread := _misread_groups(network, image_size, kept):
            kept += misread
        return kept + _harmful_groups(network, image_size, kept)


def _misread_groups(network: nn.Module, image_size: int, kept: list[str]) -> list[str]:
    """Those that name channels which their layers do not have, so that no importance can be told."""
    pruner = pruner_of(network, image_size, kept, importance=RandomImportance())
    return [name for name, group in _groups(network, pruner).items() if not _is_scored(group)]


def _is_scored(group: Any) -> bool:
    try:
        GroupMagnitudeImportance()(group)
    except BROKEN:
        return False
    return True


def _harmful_groups(network: nn.Module, image_size: int, kept: list[str]) -> list[str]:
    """By the layers they start from; also those of which too few channels would be left to try them."""
    pictures = torch.randn(2, 3, image_size, image_size)
    names = {module: name for name, module in network.named_modules()}
    pruner = pruner_of(network, image_size, kept, importance=RandomImportance(), pruning_ratio=TRIED_SHARE)
    harmful = list(_groups(network, pruner))
    for group in pruner.step(interactive=True) or ():
        undo = _memory(network, pruner.DG)
        if _is_harmless(network, pictures, group, pruner.DG):
            harmful.remove(names[group[0].dep.target.module])
        else:
            undo()
    return harmful


@torch.no_grad()
def _is_harmless(network: nn.Module, pictures: Tensor, group: Any, graph: Any) -> bool:
    try:
        with _silence(group, graph):
            silent = network(pictures)
        group.prune()
        removed = network(pictures)
    except BROKEN:
        return False
    return bool((silent - removed).abs().max() <= SAME * silent.abs().max())


def _groups(network: nn.Module, pruner: torch_pruning.BasePruner) -> dict[str, Any]:
    names = {module: name for name, module in network.named_modules()}
    found = pruner.DG.get_all_groups(pruner.ignored_layers, tuple(pruner.root_module_types))
    return {names[group[0].dep.target.module]: group for group in found}


def _memory(network: nn.Module, graph: Any) -> Callable[[], None]:
    """Puts back what cutting changes; a graph is much dearer to build anew."""
    modules = {*network.modules(), *(module for module in graph.module2node if isinstance(module, nn.Module))}
    states = [(module, {key: _own(value) for key, value in vars(module).items()}) for module in modules]
    nodes, parameters = dict(graph.module2node), dict(graph._param_to_name)

    def undo() -> None:
        for module, state in states:
            vars(module).update(state)
        graph.module2node, graph._param_to_name = nodes, parameters
        for module, node in nodes.items():
            node.module = module

    return undo


def _own(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value


def pruner_of(network: nn.Module, image_size: int, kept: list[str], **options: Any) -> torch_pruning.BasePruner:
    """With tables of its own: torch-pruning's defaults are shared by all pruners, which keep each other's networks."""
    pictures = torch.zeros(2, 3, image_size, image_size)
    own: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    own |= {"max_pruning_ratio": DEEPEST_CUT, "ignored_layers": [network.get_submodule(name) for name in kept]}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unwrapped parameters")  # tokens and places: they are tried as all else is
        try:
            return torch_pruning.BasePruner(network, pictures, **own | options)
        except BROKEN:
            return torch_pruning.BasePruner(
                network, pictures, forward_fn=tracing.around(network, pictures), **own | options
            )


def lively(network: nn.Module, image_size: int) -> nn.Module:
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
