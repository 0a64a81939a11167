"""From floating point to 8-bit integers, with Brevitas: BatchNorm merged, biases corrected.

Weights are int8 with a scale for each output channel; activations are uint8 everywhere, because ONNX Runtime's fast
kernels want uint8 x int8. A network of simple steps is quantized as a graph, with channels equalised, any other layer
by layer; which of the two follows from the network alone. The artifact holds the integer codes and their scales, not
rounded floats.
"""

import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import brevitas.nn as quantized_layers
import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.quantize import preprocess_for_quantize, quantize
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.quant import Int8WeightPerChannelFloat, Int32Bias, ShiftedUint8ActPerTensorFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.fx.proxy import TraceError
from torch.nn import functional

from stages.core import layerwise, params, zeros
from stages.core.networks import artifact
from stages.core.networks.artifact import Card, Model
from stages.core.running.errors import Refusal

CODES, SCALE = "weight", "weight_scale"

# Brevitas follows integers through these steps of a graph; any other network is quantized layer by layer
MODULES = {nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Identity, nn.Dropout, nn.Flatten}
MODULES |= {nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d}
FUNCTIONS = {operator.add, operator.iadd, torch.add, torch.flatten, functional.relu, functional.adaptive_avg_pool2d}
METHODS = {"add", "add_", "flatten"}


def calibrate(network: nn.Module, settings: params.StaticInt8, images: list[Tensor]) -> nn.Module:
    """An integer network whose ranges come from these normalised pictures."""
    integer = _insert_quantizers(network, settings, images[0].shape[-1], settings.equalize_iterations)
    integer = integer.to(images[0].device)
    with torch.no_grad():
        with calibration_mode(integer):
            _show(integer, images)
        if settings.correct_bias:
            correcting = bias_correction_mode(integer)
            correcting.bias_correction.channel_dim = _channels  # pyright: ignore[reportAttributeAccessIssue]
            with correcting:
                _show(integer, images)
    broken = [name for name, value in integer.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise Refusal(f"calibration gave a value that is not finite in {broken[0]}: look at the calibration pictures")
    return integer.eval()


def save(folder: Path, network: nn.Module, card: Card) -> None:
    """Codes and scales in place of the float weights they stand for."""
    state = network.state_dict()
    for name, layer in _layers(network):
        weight = layer.quant_weight()
        state[f"{name}.{CODES}"] = weight.int().to(torch.int8)  # pyright: ignore[reportAttributeAccessIssue]
        state[f"{name}.{SCALE}"] = torch.as_tensor(weight.scale)  # pyright: ignore[reportAttributeAccessIssue]
    artifact.save(folder, state, card)


def load(folder: Path) -> Model:
    card = artifact.read_card(folder)
    if card.quantization is None:
        raise Refusal(f"{folder} is not quantized")
    size = card.facts.image_size
    network = _insert_quantizers(artifact.build(card), card.quantization, size, equalize_iterations=0)
    state = artifact.read_weights(folder)
    for name, _ in _layers(network):
        if f"{name}.{SCALE}" not in state:
            raise Refusal(f"{folder}: no scale for layer {name}: the weights are of another architecture")
        state[f"{name}.{CODES}"] = state[f"{name}.{CODES}"].float() * state.pop(f"{name}.{SCALE}")
    artifact.fill(network, state, folder)
    return Model(network.eval(), card)


def levels(network: nn.Module) -> dict[str, int]:
    """The most distinct values that any channel of each layer takes."""
    return {
        name: max(len(channel.unique()) for channel in layer.quant_weight().int())  # pyright: ignore[reportAttributeAccessIssue]
        for name, layer in _layers(network)
    }


def zero_codes(network: nn.Module) -> float:
    """Their share, with those of weights too small for their channel's scale."""
    return zeros.share(layer.quant_weight().int() for _, layer in _layers(network))  # pyright: ignore[reportAttributeAccessIssue]


def _insert_quantizers(
    network: nn.Module, settings: params.StaticInt8, image_size: int, equalize_iterations: int
) -> nn.Module:
    network = network.cpu().eval()
    low, high = 100 - settings.percentile, settings.percentile
    signed = _ranged(ShiftedUint8ActPerTensorFloat, low_percentile_q=low, high_percentile_q=high)
    unsigned = _ranged(Uint8ActPerTensorFloat, high_percentile_q=high)
    identity = quantized_layers.QuantIdentity
    weights = {"weight_quant": Int8WeightPerChannelFloat, "bias_quant": Int32Bias, "return_quant_tensor": False}
    if not _is_simple(network):
        example = torch.linspace(-2, 2, 3 * image_size**2).view(1, 3, image_size, image_size)
        return layerwise.quantize(network, example, signed, unsigned, weights)
    return quantize(
        preprocess_for_quantize(network, equalize_iters=equalize_iterations),
        quant_identity_map={
            "signed": (identity, {"act_quant": signed, "return_quant_tensor": True}),
            "unsigned": (identity, {"act_quant": unsigned, "return_quant_tensor": True}),
        },
        compute_layer_map={
            nn.Conv2d: (quantized_layers.QuantConv2d, weights),
            nn.Linear: (quantized_layers.QuantLinear, weights),
        },
        quant_act_map={nn.ReLU: (quantized_layers.QuantReLU, {"act_quant": unsigned, "return_quant_tensor": True})},
    )


def _is_simple(network: nn.Module) -> bool:
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


def _ranged(quantizer: Any, **percentiles: float) -> Any:
    """Brevitas is told its options by the attributes of a class."""
    return type(quantizer)(quantizer.__name__, (quantizer,), percentiles)


def _layers(network: nn.Module) -> Iterable[tuple[str, QuantWeightBiasInputOutputLayer]]:
    return (
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, QuantWeightBiasInputOutputLayer)
    )


def _channels(values: Tensor, layer: nn.Module) -> int:
    """Brevitas takes rows for channels where a linear layer reads pictures with channels last."""
    return values.ndim - 1 if isinstance(layer, nn.Linear) else 1


def _show(network: nn.Module, images: list[Tensor]) -> None:
    for batch in images:
        network(batch)
