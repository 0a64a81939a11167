"""The sizes of a network's layers, read off it and put back: what pruning changed, as data.

A pruned network is the dense one with narrower layers, so its widths and its weights are all there is to keep. A
layer's width is the shape of each of its tensors and each number among its attributes: true of any layer of any
library, and nothing here needs to know which. A block that was left out has no width at all.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

Number = int | float
Width = Mapping[str, tuple[Number, ...]]
Widths = Mapping[str, Width]  # by the layer's path
LEFT_OUT: Width = {"left_out": ()}


def read(network: nn.Module) -> dict[str, dict[str, tuple[Number, ...]]]:
    return {name: dict(_numbers(module)) for name, module in network.named_modules()}


def difference(network: nn.Module, dense: nn.Module) -> dict[str, dict[str, tuple[Number, ...]]]:
    """The layers in which a network differs from the one its settings describe, and in what."""
    original, changed = read(dense), {}
    for name, module in network.named_modules():
        if type(module) is nn.Identity and type(dense.get_submodule(name)) is not nn.Identity:
            changed[name] = dict(LEFT_OUT)
    for name, width in read(network).items():
        own = {key: value for key, value in width.items() if original[name].get(key) != value}
        if own:
            changed[name] = own
    return changed


def apply(network: nn.Module, widths: Widths) -> None:
    """Give the network's layers these widths; tensors that change are empty, to be filled."""
    for name, width in widths.items():
        if width == LEFT_OUT:
            network.set_submodule(name, nn.Identity())
            continue
        module = network.get_submodule(name)
        for key, value in width.items():
            before: Any = getattr(module, key)
            if isinstance(before, Tensor):
                after = torch.empty(cast(tuple[int, ...], value), dtype=before.dtype)
                setattr(module, key, nn.Parameter(after) if isinstance(before, nn.Parameter) else after)
            else:
                setattr(module, key, value if isinstance(before, tuple) else value[0])


def outputs(network: nn.Module) -> dict[str, int]:
    """Of each convolution and linear layer."""
    return {
        name: len(module.weight)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def _numbers(module: nn.Module) -> Iterator[tuple[str, tuple[Number, ...]]]:
    for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if key not in module._non_persistent_buffers_set:  # which code fills for itself
            yield key, tuple(tensor.shape)
    for key, value in vars(module).items():
        if type(value) in (int, float):
            yield key, (value,)
        elif isinstance(value, tuple) and value and all(type(number) is int for number in value):
            yield key, tuple(value)
