"""How torch-pruning is led around code that it stumbles over, and yet into the modules which that code calls.

It reads the graph of one forward pass, and does not understand everything there, such as channels that are shuffled.
The graph is torn at the edges of such a module and of those it calls, so that groups end there.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch_pruning
from torch import Tensor, nn

# what networks and torch-pruning raise where channels are missing or a graph is none that it knows
BROKEN = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError, KeyError, ZeroDivisionError)

Forward = Callable[[nn.Module, Any], Any]


def around(network: nn.Module, pictures: Tensor) -> Forward:
    """A forward pass that torch-pruning can read, if there is one."""
    return _torn(_stumbling(network, pictures, _inputs(network, pictures), []))


def _stumbling(
    network: nn.Module, given: Tensor | None, inputs: dict[nn.Module, Tensor], known: list[nn.Module]
) -> list[nn.Module]:
    """The innermost modules without which the rest can be read."""
    if given is not None and _readable(network, given, known):
        return known
    found = known
    for part in network.children():
        if list(part.parameters()):
            found = _stumbling(part, inputs.get(part), inputs, found)
    if given is None or (len(found) > len(known) and _readable(network, given, found)):
        return found
    return [*found, network]


def _readable(network: nn.Module, given: Tensor, torn: list[nn.Module]) -> bool:
    graph = torch_pruning.DependencyGraph()
    try:
        graph.build_dependency(network, given, forward_fn=_torn(torn), verbose=False)
        list(graph.get_all_groups())
    except BROKEN:
        return False
    return True


def _inputs(network: nn.Module, pictures: Tensor) -> dict[nn.Module, Tensor]:
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if len(given) == 1 and isinstance(given[0], Tensor):
            found[module] = _leaf(given[0])

    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    network(pictures)
    for hook in hooks:
        hook.remove()
    return found


def _torn(modules: list[nn.Module]) -> Forward:
    edges = [part for module in modules for part in (module, *_called(module))]

    def forward(network: nn.Module, given: Any) -> list[Tensor]:
        ends: list[Tensor] = []

        def tear(value: Any) -> Any:
            if isinstance(value, tuple | list):
                return type(value)(map(tear, value))
            if not isinstance(value, Tensor) or value.grad_fn is None:
                return value
            ends.append(value)
            return _leaf(value)

        hooks = [edge.register_forward_pre_hook(lambda _, values: tear(values)) for edge in edges]
        hooks += [edge.register_forward_hook(lambda _, __, value: tear(value)) for edge in edges]
        try:
            answer = network(given)
        finally:
            for hook in hooks:
                hook.remove()
        return [*ends, answer]

    return forward


def _called(module: nn.Module) -> Iterator[nn.Module]:
    for part in module.children():
        yield from _called(part) if isinstance(part, nn.ModuleList | nn.ModuleDict) else (part,)


def _leaf(value: Tensor) -> Tensor:
    """The graph begins here; a copy, since it may be changed in place."""
    return value.detach().requires_grad_(value.is_floating_point()).clone()
