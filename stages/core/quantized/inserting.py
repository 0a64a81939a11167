"""Brevitas puts integer layers into a network; what they round by are grids of ours.

A network of simple steps is quantized as a graph, any other layer by layer; which of the two follows from the network
alone. BatchNorm is merged first.
"""

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import brevitas.nn as quantized_layers
import torch
from brevitas import config
from brevitas.graph.quantize import preprocess_for_quantize, quantize
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.proxy import ActQuantProxyFromInjector as Flow
from brevitas.quant import Int8WeightPerChannelFloat, Int32Bias, Uint8ActPerTensorFloat
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.fx.proxy import TraceError
from torch.nn import functional

from stages.core.quantized import grid, layerwise
from stages.core.quantized.grid import Grid
from stages.core.running.errors import Refusal

Layer = Any  # a QuantConv2d and its like, whose attributes come from mix-ins
config.REINIT_ON_STATE_DICT_LOAD = False  # Brevitas would build quantizers of its own whenever weights are loaded

WIDEST = 8  # bits that the file's integers have, however few of their levels are taken

# Brevitas follows integers through these steps of a graph; any other network is quantized layer by layer
MODULES = {nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Identity, nn.Dropout, nn.Flatten}
MODULES |= {nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d}
ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
FUNCTIONS = ADDITIONS | {torch.flatten, functional.relu, functional.adaptive_avg_pool2d}
METHODS = ADDITIONS | {"flatten"}

UNKNOWN = (nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Bilinear, nn.RNNBase, nn.MultiheadAttention)

WEIGHTS = {"weight_quant": Int8WeightPerChannelFloat, "bias_quant": Int32Bias, "return_quant_tensor": False}
FLOWING = {"act_quant": Uint8ActPerTensorFloat, "return_quant_tensor": True}


def insert(network: nn.Module, image_size: int, equalize_iterations: int) -> tuple[nn.Module, nn.Module]:
    """The network with BatchNorm merged, in floating point and with integer layers whose grids are yet to be set."""
    network = network.cpu().eval()
    _refuse_unknown(network)
    example = torch.linspace(-2, 2, 3 * image_size**2).view(1, 3, image_size, image_size)
    if is_simple(network):
        merged: Any = preprocess_for_quantize(network, equalize_iters=equalize_iterations)
        integer = _as_graph(copy.deepcopy(merged))
        _set_grids(integer, {})
    else:
        merged, course = layerwise.merge(network, example)
        integer = layerwise.quantize(copy.deepcopy(merged), course, Uint8ActPerTensorFloat, WEIGHTS)
        _set_grids(integer, course.writers)
    return merged, integer


def _refuse_unknown(network: nn.Module) -> None:
    for name, layer in network.named_modules():
        if isinstance(layer, UNKNOWN):
            raise Refusal(
                f"layer {name} ({type(layer).__name__}) has no integer form: take a quantize.method of "
                "another name, or another network"
            )


def layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    integer = QuantWeightBiasInputOutputLayer
    return ((name, module) for name, module in network.named_modules() if isinstance(module, integer))


def flows(network: nn.Module) -> Iterator[tuple[str, Flow]]:
    """What is rounded between layers."""
    found = ((name, module) for name, module in network.named_modules() if isinstance(module, Flow))
    return ((name, flow) for name, flow in found if flow.is_quant_enabled)


def value(result: Any) -> Tensor:
    """Brevitas sends numbers with their scales."""
    return getattr(result, "value", result)


def grid_of(quantizer: Any) -> Grid:
    """Of a layer's weights, or of a flow."""
    proxy: Any = quantizer.fused_activation_quant_proxy if isinstance(quantizer, Flow) else quantizer
    return proxy.tensor_quant


class Kept(nn.Module):
    """A layer in floating point. ONNX Runtime makes integers of one that stands right between integers, whatever its
    weights are; turning the sign over, twice, is what it does not look through."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        layer.weight.data.neg_()

    def forward(self, given: Any) -> Tensor:
        return self.layer(-value(given))


def keep(integer: nn.Module, merged: nn.Module, name: str) -> None:
    """In floating point."""
    integer.set_submodule(name, Kept(copy.deepcopy(merged.get_submodule(name))))


def is_simple(network: nn.Module) -> bool:
    """Whether the graph can be read off the code, and is of the steps that Brevitas quantizes as one."""
    try:
        nodes = symbolic_trace(network).graph.nodes
    except (TraceError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError, KeyError, IndexError):
        return False
    steps: dict[str, Callable[[Any], bool]] = {
        "call_module": lambda target: type(network.get_submodule(target)) in MODULES,
        "call_function": lambda target: target in FUNCTIONS,
        "call_method": lambda target: target in METHODS,
    }
    return all(node.op in ("placeholder", "output") or steps.get(node.op, bool)(node.target) for node in nodes)


def _as_graph(network: nn.Module) -> nn.Module:
    graph: Any = quantize(
        network,
        quant_identity_map=dict.fromkeys(("signed", "unsigned"), (quantized_layers.QuantIdentity, FLOWING)),
        compute_layer_map={
            nn.Conv2d: (quantized_layers.QuantConv2d, WEIGHTS),
            nn.Linear: (quantized_layers.QuantLinear, WEIGHTS),
        },
        quant_act_map={nn.ReLU: (quantized_layers.QuantReLU, FLOWING)},
    )
    for node in graph.graph.nodes:
        if node.op != "call_module" and node.target in ADDITIONS:
            node.op, node.target = "call_function", _sum
        if _is_flow(graph, node) and _is_flattening(graph, node.args[0]):
            _round_before_too(graph.graph, node)
    graph.recompile()
    return graph


def _is_flow(graph: nn.Module, node: Any) -> bool:
    return node.op == "call_module" and isinstance(graph.get_submodule(node.target), quantized_layers.QuantIdentity)


def _is_flattening(graph: nn.Module, node: Any) -> bool:
    target = graph.get_submodule(node.target) if node.op == "call_module" else node.target
    return len(node.users) == 1 and (target in (torch.flatten, "flatten") or isinstance(target, nn.Flatten))


def _round_before_too(graph: Any, flow: Any) -> None:
    """What is pooled is rounded at once: only so ONNX Runtime pools integers. Rounding it again changes nothing."""
    flattening = flow.args[0]
    with graph.inserting_before(flattening):
        flattening.update_arg(0, graph.call_module(flow.target, (flattening.args[0],)))


def _sum(one: Any, other: Any) -> Tensor:
    """Brevitas wants one scale for both sides. ONNX Runtime does not, and two fit better."""
    return value(one) + value(other)


def _set_grids(network: nn.Module, writers: Mapping[str, str]) -> None:
    """What one layer rounds and the next one rounds again has one grid: ONNX Runtime takes two in a row for one."""
    for _, layer in layers(network):
        _set(layer.weight_quant, Grid(grid.of_weights(WIDEST), WIDEST, torch.ones(len(layer.weight))))  # pyright: ignore[reportArgumentType]
    found = dict(flows(network))
    for flow in found.values():
        _set(flow, Grid(grid.of_activations(WIDEST), WIDEST, torch.tensor(1.0)))
    for reader, writer in writers.items():
        again = found.get(f"{reader}.input_quant")
        first = found.get(f"{writer}.output_quant") or found.get(f"{writer}.act_quant")
        if again is not None and first is not None:
            _set(again, grid_of(first))


def _set(quantizer: Any, grid: Grid) -> None:
    """All of its range counts, so that nothing clips it."""
    quantizer.quant_injector = quantizer.quant_injector.let(narrow_range=False)
    proxy: Any = quantizer.fused_activation_quant_proxy if isinstance(quantizer, Flow) else quantizer
    proxy.tensor_quant = grid


@dataclass(frozen=True)
class Order:
    """Layers as they are called, and the flows that the first and the last of them read, with all that come after."""

    layers: tuple[str, ...]
    ends: frozenset[str]


def order(integer: nn.Module, example: Tensor) -> Order:
    calls = list[tuple[bool, str]]()  # of a layer or of a flow
    watched = [(True, *named) for named in layers(integer)] + [(False, *named) for named in flows(integer)]
    hooks = [
        module.register_forward_pre_hook(lambda *_, call=(is_layer, name): calls.append(call))
        for is_layer, name, module in watched
    ]
    with torch.no_grad():
        integer(example)
    for hook in hooks:
        hook.remove()
    called = tuple(dict.fromkeys(name for is_layer, name in calls if is_layer))
    last = max(at for at, call in enumerate(calls) if call == (True, called[-1]))
    after = {name for is_layer, name in calls[last:] if not is_layer}
    return Order(called, frozenset(after | {_read_by(called[0], calls), _read_by(called[-1], calls)} - {""}))


def _read_by(layer: str, calls: list[tuple[bool, str]]) -> str:
    """What stands in the layer itself, or else what was called last before it."""
    own = f"{layer}.input_quant"
    before = [name for is_layer, name in calls[: calls.index((True, layer))] if not is_layer]
    return own if (False, own) in calls else (before or [""])[-1]
