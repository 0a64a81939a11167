"""A network becomes one ONNX file that needs nothing beside it.

The file takes pictures as they come, uint8 RGB [batch, height, width, 3]; normalisation is inside, and its metadata
holds the class names and how to make a picture fit (stages.core.predicting.describing reads them).
"""

import copy
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.onnx import OnnxExporterError

from stages.core import params, plain
from stages.core.datasets.storage import Facts
from stages.core.networks.artifact import Card, Model
from stages.core.predicting.schema import ONE_BY_ONE, SCHEMA
from stages.core.running.errors import Refusal
from stages.core.shipping import packing

PRODUCER = "LightVision"
CORE_INPUT, INPUT, OUTPUT = "normalised", "images", "logits"
Exporter = Callable[[nn.Module, torch.Tensor, Path, int], None]


def write(model: Model, path: Path, opset: int, facts: dict[str, str]) -> None:
    """`facts` go into the metadata beside what the card tells."""
    exporter = EXPORTERS[model.card.quantization.name if model.card.quantization else None]
    size = model.card.facts.image_size
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        core = Path(folder) / "core.onnx"
        try:
            exporter(model.network.cpu().eval(), torch.zeros(2, 3, size, size), core, opset)
        except OnnxExporterError as error:
            reason = str(error).split(". ")[0].split(" [")[0]
            raise Refusal(
                f"{type(model.network).__name__} for {size} px has no ONNX file ({reason}): take another "
                "prepare.image_size or another network"
            ) from error
        graph = onnx.load(core)
    _put_normalisation_inside(graph, model.card.facts)
    _shorten_names(graph)
    _describe(graph, model, facts)
    packing.pack(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def _export_float(network: nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """The exporter takes the weights that some layers standardise for pictures, and standardises them wrongly."""
    network = plain.unwrap(copy.deepcopy(network), example)
    torch.onnx.export(network, (example,), path, opset_version=opset, dynamo=False, **_NAMES)


def _export_scaled(network: nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """Codes and their scales lie apart in the file; the exporter would multiply them."""
    torch.onnx.export(network, (example,), path, opset_version=opset, dynamo=False, do_constant_folding=False, **_NAMES)


def _export_integer(network: nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """Brevitas refuses a large bias, whose code comes out of a division with noise; here the gate is the judge."""
    from brevitas.export import export_onnx_qcdq
    from brevitas.quant_tensor import base_quant_tensor

    network.requires_grad_(requires_grad=False)  # the tracer takes no scale for a constant that could still learn
    with patch.dict(base_quant_tensor.TOLERANCE, {torch.float32: 1.0}):
        export_onnx_qcdq(network, args=example, export_path=str(path), opset_version=opset, dynamo=False, **_NAMES)


_NAMES = {
    "input_names": [CORE_INPUT],
    "output_names": [OUTPUT],
    "dynamic_axes": {CORE_INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
}


EXPORTERS: Mapping[str | None, Exporter] = {
    None: _export_float,
    "float16": _export_float,
    "bfloat16": _export_float,
    "float8": _export_scaled,
    "dynamic_int8": _export_float,
    "integer": _export_integer,
}


def _put_normalisation_inside(model: onnx.ModelProto, facts: Facts) -> None:
    """images -> float -> channels first -> (x / 255 - mean) / std, as one multiplication and one addition."""
    mean, std = np.array(facts.mean), np.array(facts.std)
    constants = {"pixel_scale": 1 / (255 * std), "pixel_shift": -mean / std}
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32).reshape(1, 3, 1, 1), name))
    steps = [
        helper.make_node("Transpose", [INPUT], ["pixels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixels_first"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "pixel_scale"], ["pixels_scaled"]),
        helper.make_node("Add", ["pixels_scaled", "pixel_shift"], [CORE_INPUT]),
    ]
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    shape = ["batch", facts.image_size, facts.image_size, 3]
    model.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))


def _shorten_names(model: onnx.ModelProto) -> None:
    """The exporter names what flows between nodes by paths of modules, which take a fifth of a small file."""
    made = [name for node in model.graph.node for name in node.output]
    made += [tensor.name for tensor in model.graph.initializer]
    short = {name: f"t{number}" for number, name in enumerate(name for name in made if name.startswith("/"))}
    for node in model.graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
    for tensor in model.graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)


def _describe(model: onnx.ModelProto, network: Model, facts: dict[str, str]) -> None:
    card = network.card
    model.producer_name = PRODUCER
    model.doc_string = "Pictures as uint8 RGB [batch, height, width, 3] in, one logit for each class out."
    content = {
        "schema": str(SCHEMA),
        "dataset": card.facts.dataset,
        "classes": json.dumps(list(card.facts.classes), ensure_ascii=False),
        "image_size": str(card.facts.image_size),
        "fit": f"{card.facts.fit}, antialiased bicubic",
        "mean": json.dumps(list(card.facts.mean)),
        "std": json.dumps(list(card.facts.std)),
        "architecture": card.architecture.model_dump_json(),
        "weights": _weights(card),
        **facts,
    }
    if isinstance(card.quantization, params.DynamicInt8):
        content["asked"] = ONE_BY_ONE
    helper.set_model_props(model, content)


def _weights(card: Card) -> str:
    quantization = card.quantization
    if isinstance(quantization, params.Integer):
        return ", ".join(dict.fromkeys("ternary" if bits == "ternary" else f"int{bits}" for bits in card.bits.values()))
    if isinstance(quantization, params.Half):
        return f"{quantization.name}, computed in float32"
    if isinstance(quantization, params.Float8):
        return f"float8 {quantization.format}, computed in float32"
    if isinstance(quantization, params.DynamicInt8):
        return "int8 in linear layers, float32 in all others"
    return "float32"
