"""The channel counts of a network, read off it and put back: what pruning changed, as data.

A pruned network is the dense one with narrower layers, so its widths and its weights are all there is to keep.
"""

from collections.abc import Mapping

from torch import nn

Widths = Mapping[str, tuple[int, ...]]


def read(network: nn.Module) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found[name] = (module.in_channels, module.out_channels, module.groups)
        elif isinstance(module, nn.Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            found[name] = (module.num_features,)
    return found


def difference(network: nn.Module, dense: nn.Module) -> dict[str, tuple[int, ...]]:
    """The layers in which a network differs from the one its settings describe."""
    original = read(dense)
    return {name: width for name, width in read(network).items() if original[name] != width}


def apply(network: nn.Module, widths: Widths) -> None:
    """Put layers of these widths, not yet filled, in place of the network's own."""
    for name, width in widths.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _narrow(network.get_submodule(name), width))


def _narrow(layer: nn.Module, width: tuple[int, ...]) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        channels_in, channels_out, groups = width
        return nn.Conv2d(
            channels_in,
            channels_out,
            layer.kernel_size,  # pyright: ignore[reportArgumentType]
            layer.stride,  # pyright: ignore[reportArgumentType]
            layer.padding,  # pyright: ignore[reportArgumentType]
            layer.dilation,  # pyright: ignore[reportArgumentType]
            groups,
            layer.bias is not None,
        )
    if isinstance(layer, nn.Linear):
        return nn.Linear(*width, bias=layer.bias is not None)
    return type(layer)(width[0], eps=layer.eps, momentum=layer.momentum)  # pyright: ignore[reportCallIssue, reportArgumentType]
