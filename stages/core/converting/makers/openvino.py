"""OpenVINO's intermediate representation: a graph (.xml) and its numbers (.bin).

Floating point comes from the shipped float32 file. The integers are those of our own quantized network: its codes stay
as they are, and what quantizes between them becomes FakeQuantize, from which the runtime chooses its integer kernels.
The file takes one picture, uint8, and tells by itself what it is (`lightvision` in its `rt_info`). float32 is computed
in float32, also where a processor has bfloat16; float16 is stored so, and computed so where the processor can.
"""

import json
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from stages.core.converting.makers import protocol
from stages.core.converting.makers.openvino_graph import held
from stages.core.converting.makers.protocol import Answer, Described, Handed

openvino: Any = import_module("openvino")  # of another environment, and of this module's own name
Model = Any
Node = Any
Value = Any

FACTS = "lightvision"
TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8"}
HINTS = {"float32": openvino.Type.f32, "float16": openvino.Type.f16}
BYTES = frozenset({"int8", "uint8"})

PRODUCTS = frozenset({"Convolution", "GroupConvolution", "MatMul"})
BEFORE_PRODUCTS = frozenset({"Convert", "Subtract", "Multiply", "Reshape", "Transpose", "FakeQuantize"})
EXECUTED_PRODUCTS = frozenset({"Convolution", "FullyConnected"})
FUSED = "Subgraph"  # small layers in a row, compiled into one


def float32(handed: Handed, stem: Path) -> None:
    _save(handed.onnx, handed, stem, halves=False)


def float16(handed: Handed, stem: Path) -> None:
    _save(handed.onnx, handed, stem, halves=True)


def int8(handed: Handed, stem: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "integers.onnx"
        onnx.save(held(onnx.load(handed.integers)), path)
        _save(path, handed, stem, halves=False)


def _save(path: Path, handed: Handed, stem: Path, *, halves: bool) -> None:
    """Batch 1: of shapes that are known, fewer are found anew at every call."""
    size = handed.facts["image_size"]
    converted = openvino.convert_model(path, input=[1, size, size, 3])
    for name, fact in handed.facts.items():
        converted.set_rt_info(json.dumps(fact, ensure_ascii=False), [FACTS, name])
    openvino.save_model(converted, stem.with_suffix(".xml"), compress_to_fp16=halves)


def opened(file: Path) -> Answer:
    request = _compiled(openvino.Core().read_model(file)).create_infer_request()
    return lambda picture: np.array(request.infer({0: picture})[0])


def describe(file: Path) -> Described:
    """Types are those of the weights as they lie in the file, and those that products with weights take here."""
    model = openvino.Core().read_model(file)
    weights, layers = _weights(model), _executed(model)
    taken = [name for layer in layers for name in _taken(layer)]
    operators = Counter(_told(layer, "layerType") for layer in layers)
    return Described(
        runtime=f"OpenVINO {openvino.__version__.split('-')[0]}",
        kind=_kind(weights, taken),
        types=Counter(weights + taken),
        operators=operators,
        input=TYPES[model.inputs[0].get_element_type().to_string()],
        transposes=operators["Transpose"],
    )


def _kind(weights: list[str], taken: list[str]) -> str:
    if not BYTES.intersection(weights):
        return " and ".join(sorted(set(weights)))
    all_taken = len(taken) == len(weights) and BYTES.issuperset(taken)
    return "full-integer" if all_taken and BYTES.issuperset(weights) else "partly integer"


def _weights(model: Model) -> list[str]:
    """For every product with a weight, in what its numbers are stored, whatever gives them back."""
    products = (node for node in model.get_ops() if node.get_type_name() in PRODUCTS)
    origins = (_origin(node.input_value(1).get_node()) for node in products)
    return [TYPES[node.get_element_type().to_string()] for node in origins if node.get_type_name() == "Constant"]


def _origin(node: Node) -> Node:
    while node.get_type_name() in BEFORE_PRODUCTS:
        node = node.input_value(0).get_node()
    return node


def _executed(model: Model) -> list[Node]:
    """What the runtime does for each picture; what hangs on constants alone is done once."""
    constant: set[str] = set()
    layers: list[Node] = []
    for layer in _compiled(model).get_runtime_model().get_ordered_ops():
        before = {value.get_node().get_friendly_name() for value in layer.input_values()}
        if _told(layer, "layerType") == "Const" or (before and before <= constant):
            constant.add(layer.get_friendly_name())
        else:
            layers.append(layer)
    return layers


def _taken(layer: Node) -> list[str]:
    """In what each product of a layer computes."""
    kind = _told(layer, "layerType")
    if kind in EXECUTED_PRODUCTS:
        told = _told(layer, "runtimePrecision")
        return [TYPES.get(told, told)]
    if kind == FUSED:
        given = [TYPES.get(value.get_element_type().to_string()) for value in layer.input_values() if _is_matrix(value)]
        return [name for name in given if name in BYTES]
    return []


def _is_matrix(value: Value) -> bool:
    constant = _told(value.get_node(), "layerType") == "Const"
    return constant and sum(length > 1 for length in value.get_shape()) > 1


def _told(layer: Node, name: str) -> str:
    return layer.get_rt_info()[name].value


def _compiled(model: Model) -> Any:
    """Otherwise a processor with bfloat16 would compute in it, whatever the file holds."""
    hint = HINTS["float16" if "float16" in _weights(model) else "float32"]
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    return openvino.Core().compile_model(model, "CPU", settings)


if __name__ == "__main__":
    kinds = {f.__name__: f for f in (float32, float16, int8)}
    protocol.main(convert=kinds, answer=opened, describe=describe)
