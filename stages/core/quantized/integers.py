"""An integer network as an artifact: codes and scales, however they were found."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.networks import artifact
from stages.core.networks.artifact import Card, Model
from stages.core.quantized import grid, inserting
from stages.core.quantized.inserting import Layer
from stages.core.running.errors import Refusal

CODES, SCALE, GROWTH = "weight", "weight_scale", ".tensor_quant.growth"


def save(folder: Path, network: nn.Module, card: Card) -> None:
    """Codes and scales in place of the float weights they stand for; what scales learnt is in them."""
    state, names = network.state_dict(), _own_names(network)
    for name, matrix in all_codes(network).items():
        state[f"{name}.{CODES}"] = matrix
    artifact.save(folder, {own: state[name] for name, own in names.items()}, card)


def load(folder: Path) -> Model:
    card = artifact.read_card(folder)
    if not isinstance(card.quantization, params.Integer):
        raise Refusal(f"{folder} holds no integer network")
    merged, network = inserting.insert(artifact.build(card), card.facts.image_size, equalize_iterations=0)
    prepare(network, merged, card.bits, card.flows)
    state = artifact.read_weights(folder)
    for name, layer in inserting.layers(network):
        if f"{name}.{SCALE}" not in state:
            raise Refusal(f"{folder}: no scale for layer {name}: the weights are of another architecture")
        scale = state[f"{name}.{SCALE}"]
        inserting.grid_of(layer.weight_quant).set(scale)
        stored = state[f"{name}.{CODES}"].float()
        state[f"{name}.{CODES}"] = stored * _along_rows(scale, stored)
    paths = {own: name for name, own in _own_names(network).items()}
    grown = {name: tensor for name, tensor in network.state_dict().items() if name.endswith(GROWTH)}
    artifact.fill(network, {paths.get(name, name): tensor for name, tensor in state.items()} | grown, folder)
    return Model(network.eval(), card)


def prepare(
    integer: nn.Module, merged: nn.Module, weights: Mapping[str, params.WeightBits], flows: Mapping[str, int]
) -> None:
    """What can be read off a card: which levels there are, and what stays in floating point."""
    for name, layer in list(inserting.layers(integer)):
        if name in weights:
            inserting.grid_of(layer.weight_quant).levels = grid.of_weights(weights[name])
        else:
            inserting.keep(integer, merged, name)
    for name, flow in inserting.flows(integer):
        one = inserting.grid_of(flow)
        one.levels = grid.of_activations(flows[name])
        one.bits.fill_(flows[name])


def codes(layer: Layer) -> Tensor:
    return inserting.grid_of(layer.weight_quant).codes(layer.weight)  # pyright: ignore[reportArgumentType]


def all_codes(network: nn.Module) -> dict[str, Tensor]:
    """Of each integer layer, by its name."""
    return {name: codes(layer).to(torch.int8) for name, layer in inserting.layers(network)}


def kept(network: nn.Module) -> list[str]:
    """Layers in floating point."""
    return [name for name, module in network.named_modules() if isinstance(module, inserting.Kept)]


@torch.no_grad()
def change(network: nn.Module, new: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """In place: other codes and scales for those that there are."""
    for _, layer in inserting.layers(network):
        one = inserting.grid_of(layer.weight_quant)
        changed, scale = new(codes(layer).to(torch.int8), one.scale)
        layer.weight.data = changed * _along_rows(scale, changed)
        one.set(scale)


def levels(network: nn.Module) -> dict[str, int]:
    """The most distinct values that any channel of each layer takes."""
    return {name: max(len(row.unique()) for row in matrix) for name, matrix in all_codes(network).items()}


def _along_rows(scale: Tensor, matrix: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (matrix.ndim - 1))


def _own_names(network: nn.Module) -> dict[str, str]:
    """Brevitas' path to a number, and a short one."""
    return {
        name: re.sub(r"(\.weight)_quant\.tensor_quant\.|\.fused_activation_quant_proxy\.tensor_quant\.", _short, name)
        for name in network.state_dict()
        if not name.endswith(GROWTH)
    }


def _short(path: re.Match[str]) -> str:
    return f"{path[1]}_" if path[1] else "."
