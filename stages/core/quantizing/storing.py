"""Fewer bits by rounding alone: there is nothing to calibrate and nothing to learn."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stages.core import params, plain, zeros
from stages.core.networks import artifact
from stages.core.quantized import stored
from stages.core.quantized.dynamic import DynamicLinear
from stages.core.quantized.stored import CODES, EIGHT, SCALE
from stages.core.quantizing.course import Asked, Made
from stages.core.running import progress
from stages.core.running.errors import Refusal

SIXTEEN = {"float16": torch.float16, "bfloat16": torch.bfloat16}
NOTHING_TRIED: Mapping[str, Any] = {
    "tried": [],
    "choices": [],
    "alone": {},
    "flows": {},
    "recovery": None,
    "seeds": {},
    "against": {},
    "budget": 0,
}


def half(asked: Asked, method: params.Half) -> Made:
    """Everything that was learnt, not the weights of products alone."""
    network, dtype = _begin(asked), SIXTEEN[method.name]
    for name, parameter in network.named_parameters():
        rounded = parameter.data.to(dtype)
        if not rounded.isfinite().all():
            raise Refusal(
                f"{name} reaches {parameter.data.abs().max():.3g}, and {method.name} ends at "
                f"{torch.finfo(dtype).max:.3g}: take {{name: float8, format: e4m3}}, which has scales"
            )
        parameter.data = rounded.float()
    return _made(asked, network, {name: dtype for name, _ in network.named_parameters()}, ())


def float8(asked: Asked, method: params.Float8) -> Made:
    network = _begin(asked)
    names = [name for name, layer in network.named_modules() if type(layer) in plain.PRODUCTS]
    stored.code(network, method, names)
    return _made(asked, network, dict.fromkeys((f"{name}.{CODES}" for name in names), EIGHT[method.format]), names)


def dynamic(asked: Asked, method: params.DynamicInt8) -> Made:
    """Linear layers alone: ONNX Runtime has no fast kernel for convolutions of such inputs."""
    network = _begin(asked)
    calls = plain.watch(network, stored.example(asked.model.card)).calls
    names = [name for name, layer in network.named_modules() if type(layer) is nn.Linear and calls[name]]
    if not names:
        raise Refusal(
            f"quantize.method: {asked.model.card.architecture.name} has no linear layer, and dynamic_int8 nothing to "
            "quantize: take integer"
        )
    stored.code(network, method, names)
    made = _made(asked, network, {}, names)
    share, left = made.facts["quantized_share"], len(made.facts["float_layers"])
    progress.note(
        f"dynamic_int8: linear layers with {share:.0%} of the weights become int8 ({len(names)}), all others stay in "
        f"floating point ({left}): ONNX Runtime has no fast kernel for convolutions of such inputs"
    )
    return made


def _begin(asked: Asked) -> nn.Module:
    network = stored.merged(copy.deepcopy(asked.model.network), asked.model.card)
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise Refusal(f"{name} holds what is no number: the pruned network is broken, look at prune.training")
    return network


def _made(asked: Asked, network: nn.Module, dtypes: Mapping[str, torch.dtype], coded: Iterable[str]) -> Made:
    state = stored.state(network, dtypes)
    card = dataclasses.replace(asked.model.card, quantization=asked.quantize.method, bits=dict.fromkeys(coded, 8))
    facts = {
        "val_accuracy_calibrated": asked.judge(network)["val_accuracy"],
        "confidence": asked.quantize.confidence,
        **NOTHING_TRIED,
        **_weights(network, state),
    }
    return Made(card, lambda folder, own: artifact.save(folder, state, own), facts)


def _weights(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any]:
    products = (*zeros.PRODUCTS, DynamicLinear)
    weights = {name: state[f"{name}.{CODES}"] for name, layer in network.named_modules() if isinstance(layer, products)}
    few = {name: weight for name, weight in weights.items() if weight.dtype != torch.float32}
    scales = [tensor for name, tensor in state.items() if name.endswith(f".{SCALE}")]
    return {
        "layers": {name: _layer(weight) for name, weight in few.items()},
        "quantized_layers": list(few),
        "float_layers": [name for name in weights if name not in few],
        "quantized_share": sum(map(torch.numel, few.values())) / sum(map(torch.numel, weights.values())),
        "weight_bytes": sum(tensor.nbytes for tensor in (*weights.values(), *scales)),
        "zeros": zeros.share(weight.float() for weight in weights.values()),
    }


def _layer(weight: Tensor) -> dict[str, Any]:
    values = weight.float()
    return {
        "bits": 8 * weight.itemsize,
        "weights": weight.numel(),
        "levels": max(len(channel.unique()) for channel in values),
        "zeros": zeros.share([values]),
        "error": None,
    }
