"""What a layer reads, in the network as it was and with what is rounded already, as Gram matrices."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from stages.core.quantized.inserting import value
from stages.core.quantizing.rounding import Seen


class _Read(Exception):
    """What follows need not be computed."""


def look(merged: nn.Module, integer: nn.Module, name: str, images: Sequence[Tensor]) -> Seen:
    """Matrices for each group of the layer's channels."""
    layer, sums = integer.get_submodule(name), list[Tensor]()
    for batch in images:
        before, after = (_columns(layer, _read(network, name, batch)) for network in (merged, integer))
        products = [(one.mT @ other).double() for one, other in ((after, after), (after, before), (before, before))]
        sums = [one + other for one, other in zip(sums, products, strict=True)] if sums else products
    return Seen(*sums)


def _read(network: nn.Module, name: str, batch: Tensor) -> Tensor:
    read: list[Tensor] = []

    def hook(layer: Any, given: tuple[Any, ...]) -> None:
        rounds = getattr(layer, "input_quant", nn.Identity())
        read.append(value(rounds(given[0])))
        raise _Read

    handle = network.get_submodule(name).register_forward_pre_hook(hook)
    try:
        network(batch)
    except _Read:
        pass
    finally:
        handle.remove()
    return read[0]


def _columns(layer: Any, values: Tensor) -> Tensor:
    """[groups, places, columns], as the rows of the layer's weight meet them."""
    if isinstance(layer, nn.Linear):
        return values.flatten(0, -2)[None]
    sizes = {name: getattr(layer, name) for name in ("kernel_size", "dilation", "padding", "stride")}
    if isinstance(layer, nn.Conv1d):
        values = values.unsqueeze(-2)
        sizes = {key: (neutral, *sizes[key]) for key, neutral in zip(sizes, (1, 1, 0, 1), strict=True)}
    patches = functional.unfold(values, **sizes)  # [pictures, channels x kernel, places]
    return patches.unflatten(1, (layer.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
