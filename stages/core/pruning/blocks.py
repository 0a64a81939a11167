"""Whole blocks go: those that give what they were given, changed, can be left out."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stages.core.pruning import protection
from stages.core.pruning.graph import BROKEN
from stages.core.running.errors import Refusal

Loss = Callable[[nn.Module], float]


def without(
    network: nn.Module, count: int, image_size: int, protected: Sequence[str], loss: Loss
) -> tuple[nn.Module, list[str]]:
    """A copy without so many blocks, one after the other, each time the one that the loss misses least."""
    network, gone = copy.deepcopy(network), list[str]()
    for _ in range(count):
        free = [name for name in removable(network, image_size) if not protection.touches(protected, name)]
        losses = {name: loss(left_out(network, name)) for name in free}
        if not losses:
            raise Refusal(
                f"of this network {len(gone)} blocks can go, not {count}: lower prune.blocks, or protect less"
            )
        gone.append(min(losses, key=lambda name: losses[name]))
        network = left_out(network, gone[-1])
    return network, gone


def left_out(network: nn.Module, name: str) -> nn.Module:
    network = copy.deepcopy(network)
    network.set_submodule(name, nn.Identity())
    return network


def removable(network: nn.Module, image_size: int) -> list[str]:
    """Members of a row of modules that have layers of their own, and answer in the shape of what they read."""
    device = next(network.parameters()).device
    picture = torch.zeros(2, 3, image_size, image_size, device=device)
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, given: tuple[Any, ...], said: Any) -> None:
            if len(given) == 1 and isinstance(given[0], Tensor) and isinstance(said, Tensor):
                shapes[name] = given[0].shape, said.shape

        return hook

    rows = [(name, row) for name, row in network.named_modules() if isinstance(row, nn.Sequential | nn.ModuleList)]
    members = {f"{name}.{place}".lstrip("."): block for name, row in rows for place, block in row.named_children()}
    blocks = {name: block for name, block in members.items() if len(list(block.parameters())) > 2}
    hooks = [block.register_forward_hook(note(name)) for name, block in blocks.items()]
    network.eval()
    try:
        with torch.no_grad():
            network(picture)
    finally:
        for hook in hooks:
            hook.remove()
    same = [name for name, (read, said) in shapes.items() if read == said]
    return [name for name in same if _answers(left_out(network, name), picture)]


@torch.no_grad()
def _answers(network: nn.Module, picture: Tensor) -> bool:
    try:
        network(picture)
    except BROKEN:
        return False
    return True
