"""Any network becomes an integer network layer by layer: each product gets ranges for what it reads and writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import brevitas.nn as quantized_layers
from brevitas.graph.quantize import layerwise_quantize
from torch import Tensor, nn

from stages.core import plain

QUIETEST = 2.0**-10  # of a layer's largest weight: what an output of eight bits cannot tell from silence


@dataclass(frozen=True)
class Course:
    """`rectified`: the ReLU that alone reads a convolution, by the convolution's name; `writers`: who gave a module
    what it reads."""

    rectified: Mapping[str, str]
    writers: Mapping[str, str]


def merge(network: nn.Module, example: Tensor) -> tuple[nn.Module, Course]:
    watched = plain.watch(plain.merge(network, example), example)
    for layer in network.modules():
        if type(layer) in plain.PRODUCTS:
            _make_audible(layer)
    rectified = {
        name: reader
        for name, reader in watched.readers.items()
        if isinstance(network.get_submodule(name), nn.Conv1d | nn.Conv2d)
        and type(network.get_submodule(reader)) in (nn.ReLU, nn.ReLU6)
        and watched.calls[reader] == 1
    }
    once = {name: writer for name, writer in watched.writers.items() if watched.calls[name] == 1}
    return network, Course(rectified, once)


def quantize(network: nn.Module, course: Course, flowing: Any, weights: Mapping[str, Any]) -> nn.Module:
    """ONNX Runtime has integer kernels for a convolution that writes integers, at once or through a ReLU, and for any
    matrix product with a weight."""
    kept = {network.get_submodule(name) for name in course.rectified}
    for reader in course.rectified.values():
        network.set_submodule(reader, quantized_layers.QuantReLU(act_quant=flowing, return_quant_tensor=False))
    reading = {**weights, "input_quant": flowing}
    convolving = {**reading, "output_quant": lambda layer: None if layer in kept else flowing}
    return layerwise_quantize(
        network,
        {
            nn.Conv1d: (quantized_layers.QuantConv1d, convolving),
            nn.Conv2d: (quantized_layers.QuantConv2d, convolving),
            nn.Linear: (quantized_layers.QuantLinear, reading),
        },
    )


def _make_audible(layer: Any) -> None:
    """A bias is counted in steps of its channel's weights, and would not fit 32 bits where those are all but zero."""
    weights = layer.weight.data.flatten(1)
    places = weights.abs().argmax(dim=1, keepdim=True)
    largest = weights.gather(1, places)
    least = QUIETEST * largest.abs().max()
    layer.weight.data = weights.scatter(1, places, largest.abs().clamp(min=least).copysign(largest)).view_as(
        layer.weight
    )
