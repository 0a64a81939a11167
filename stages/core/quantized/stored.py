"""Networks whose weights are stored in few bits, and which compute in floating point, all of it or most of it.

BatchNorm is merged first: exporting would merge it into numbers that are rounded already.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.core import params, plain
from stages.core.networks import artifact
from stages.core.networks.artifact import Card, Model
from stages.core.quantized.dynamic import DynamicLinear
from stages.core.quantized.grid import TINIEST

EIGHT = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
CODES, SCALE = "weight", "weight_scale"
OWN_NAMES = {f".parametrizations.weight.original{at}": f".{name}" for at, name in enumerate((CODES, SCALE))}


class Scaled(nn.Module):
    """Codes in 8 bits of floating point times a scale for each channel, whose largest weight has the largest code.

    ONNX Runtime multiplies them once, when it loads the file.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, codes: Tensor, scale: Tensor) -> Tensor:
        return codes * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        scale = (largest / torch.finfo(self._dtype).max).clamp(min=TINIEST)
        return (weight / scale).to(self._dtype).to(weight.dtype), scale


def _scale(network: nn.Module, name: str, method: params.Float8) -> None:
    parametrize.register_parametrization(network.get_submodule(name), CODES, Scaled(EIGHT[method.format]))


def _look_at_inputs(network: nn.Module, name: str, method: params.DynamicInt8) -> None:
    layer: Any = network.get_submodule(name)
    network.set_submodule(name, DynamicLinear(layer, method.scales))


CODING: Mapping[str, Callable[[nn.Module, str, Any], None]] = {"float8": _scale, "dynamic_int8": _look_at_inputs}


def code(network: nn.Module, method: Any, names: Iterable[str]) -> None:
    """In place: these layers get codes and scales."""
    for name in names:
        CODING[method.name](network, name, method)


def merged(network: nn.Module, card: Card) -> nn.Module:
    return plain.merge(network.cpu().eval(), example(card))


def example(card: Card) -> Tensor:
    size = card.facts.image_size
    return torch.linspace(-2, 2, 3 * size**2).view(1, 3, size, size)


def state(network: nn.Module, dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """As it is saved; `dtypes` are those of what is not stored in its own."""
    names = _own_names(network)
    found = {names[name]: tensor.cpu() for name, tensor in network.state_dict().items()}
    return found | {name: found[name].to(dtype) for name, dtype in dtypes.items()}


def load(folder: Path) -> Model:
    """To the bit what was saved, in float32."""
    card = artifact.read_card(folder)
    network = merged(artifact.build(card), card)
    code(network, card.quantization, card.bits)
    names = {own: name for name, own in _own_names(network).items()}
    found = {names.get(own, own): tensor for own, tensor in artifact.read_weights(folder).items()}
    artifact.fill(network, found, folder)
    return Model(network.eval(), card)


def _own_names(network: nn.Module) -> dict[str, str]:
    """PyTorch's path to a number, and the one it is stored by."""
    found = {name: name for name in network.state_dict()}
    for path, own in OWN_NAMES.items():
        found |= {name: name.replace(path, own) for name in found if name.endswith(path)}
    return found
