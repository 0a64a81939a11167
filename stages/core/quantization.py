"""From floating point to 8-bit integers, with Brevitas: BatchNorm merged, channels equalised, biases corrected.

Weights are int8 with a scale for each output channel; activations are uint8 everywhere, because ONNX Runtime's fast
kernels want uint8 x int8. The artifact holds the integer codes and their scales, not rounded floats.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import brevitas.nn as quantized_layers
import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.quantize import preprocess_for_quantize, quantize
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.quant import Int8WeightPerChannelFloat, Int32Bias, ShiftedUint8ActPerTensorFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn

from stages.core import params
from stages.core.networks import artifact
from stages.core.networks.artifact import Card, Model
from stages.core.running.errors import Refusal

CODES, SCALE = "weight", "weight_scale"


def calibrate(network: nn.Module, settings: params.StaticInt8, images: list[Tensor]) -> nn.Module:
    """An integer network whose ranges come from these normalised pictures."""
    integer = _insert_quantizers(network, settings, settings.equalize_iterations).to(images[0].device)
    with torch.no_grad():
        with calibration_mode(integer):
            _show(integer, images)
        if settings.correct_bias:
            with bias_correction_mode(integer):
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
    network = _insert_quantizers(artifact.build(card), card.quantization, equalize_iterations=0)
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


def _insert_quantizers(network: nn.Module, settings: params.StaticInt8, equalize_iterations: int) -> nn.Module:
    graph = preprocess_for_quantize(network.cpu().eval(), equalize_iters=equalize_iterations)
    low, high = 100 - settings.percentile, settings.percentile
    signed = _ranged(ShiftedUint8ActPerTensorFloat, low_percentile_q=low, high_percentile_q=high)
    unsigned = _ranged(Uint8ActPerTensorFloat, high_percentile_q=high)
    identity = quantized_layers.QuantIdentity
    weights = {"weight_quant": Int8WeightPerChannelFloat, "bias_quant": Int32Bias, "return_quant_tensor": False}
    return quantize(
        graph,
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


def _ranged(quantizer: Any, **percentiles: float) -> Any:
    """Brevitas is told its options by the attributes of a class."""
    return type(quantizer)(quantizer.__name__, (quantizer,), percentiles)


def _layers(network: nn.Module) -> Iterable[tuple[str, QuantWeightBiasInputOutputLayer]]:
    return (
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, QuantWeightBiasInputOutputLayer)
    )


def _show(network: nn.Module, images: list[Tensor]) -> None:
    for batch in images:
        network(batch)
