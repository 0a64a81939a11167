"""LiteRT's flatbuffer (.tflite), for phones and small boards: floating point, or the maker's own integers.

Pictures enter as they lie in memory, [1, height, width, 3]: as float32 of 0..255, or, in full integers, as int8 with
scale 1 and zero point -128, so that a pixel is its own code. The file tells by itself what it is: JSON in the entry
`lightvision` of its metadata.
"""

# pyright: reportMissingImports=false

import json
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from stages.core.converting.makers import protocol
from stages.core.converting.makers.protocol import Answer, Described, Handed

Model = Any
Recipe = Any
Tensor = Any

FACTS = "lightvision"  # inside the file
IMAGES, LOGITS = "images", "logits"
SIGNATURE, FIRST = "serving_default", "args_0"  # as the converter names them
PIXEL_IS_CODE = (1.0, -128)  # scale, zero point
ALIGNED = 16  # bytes, as the schema asks of buffers and Python's writer does not know


def _names(constants: type) -> dict[int, str]:
    return {number: name for name, number in vars(constants).items() if isinstance(number, int)}


OPERATORS, TYPES = _names(schema.BuiltinOperator), _names(schema.TensorType)
CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}  # axis of the weights
FLOATS = frozenset({"float32"})
INTEGERS = frozenset({"int8", "int32"})  # shapes are flowing, too


def float32(handed: Handed, stem: Path) -> None:
    _save(_converted(handed), handed, stem)


def float16(handed: Handed, stem: Path) -> None:
    """Weights; runtimes compute in float16 where a processor has it and they are asked to."""
    from ai_edge_quantizer import qtyping, recipe_manager

    halves = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    casting = qtyping.OpQuantizationConfig(
        weight_tensor_config=halves, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    manager = recipe_manager.RecipeManager()
    manager.add_quantization_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, casting, "float_casting")
    _save(_quantized(_converted(handed), manager.get_quantization_recipe()), handed, stem)


def dynamic(handed: Handed, stem: Path) -> None:
    from ai_edge_quantizer import recipe

    _save(_quantized(_converted(handed), recipe.dynamic_wi8_afp32()), handed, stem)


def int8(handed: Handed, stem: Path) -> None:
    from ai_edge_quantizer import recipe

    content, asked = _converted(handed), recipe.static_wi8_ai8()
    _save(_quantized(content, asked, _ranges(content, asked, handed.calibration)), handed, stem)


def _converted(handed: Handed) -> bytes:
    """In the order of the pixels all the way: the converter's layout pass meets the program's one permutation."""
    import litert_torch
    import torch

    program = torch.export.load(handed.network)
    size = handed.facts["image_size"]
    return litert_torch.convert(program.module(), (torch.zeros(1, size, size, 3),)).model_content()


def _quantized(content: bytes, recipe: Recipe, ranges: dict[str, Any] | None = None) -> bytes:
    from ai_edge_quantizer import quantizer

    return bytes(quantizer.Quantizer(bytearray(content), recipe).quantize(ranges).quantized_model or b"")


def _ranges(content: bytes, recipe: Recipe, pictures: np.ndarray) -> dict[str, Any]:
    """The widest that any picture shows. The quantizer's own choice is a moving average, which the last ones decide."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    looking = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    looking.calibrate({SIGNATURE: [{FIRST: picture[None].astype(np.float32)} for picture in pictures]}, manager)
    found = looking.get_model_qsvs()
    [pixels] = Interpreter(model_content=content).get_input_details()
    return found | {
        pixels["name"]: {"min": np.zeros((1, 1, 1, 1), np.float32), "max": np.full((1, 1, 1, 1), 255, np.float32)}
    }


def _save(content: bytes, handed: Handed, stem: Path) -> None:
    """One graph, whose names of tensors are paths of modules: they are a tenth of a small file, and are left out."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    [graph], [signature] = model.subgraphs, model.signatureDefs
    for number, tensor in enumerate(graph.tensors):
        tensor.name = f"t{number}"
    for name, (port,) in ((IMAGES, signature.inputs), (LOGITS, signature.outputs)):
        port.name = graph.tensors[port.tensorIndex].name = name
    taken = _type(graph.tensors[graph.inputs[0]])
    if taken == "int8" and _grid(graph.tensors[graph.inputs[0]]) != PIXEL_IS_CODE:
        raise ValueError(f"pixels are not their own codes: {_grid(graph.tensors[graph.inputs[0]])}")
    facts = json.dumps(handed.facts | {"input": taken}, ensure_ascii=False)
    model.description = "Pictures as RGB [1, height, width, 3] in, one logit for each class out."
    model.metadata = [schema.MetadataT(name=FACTS, buffer=len(model.buffers))]
    model.buffers.append(schema.BufferT(data=np.frombuffer(facts.encode(), np.uint8)))
    stem.with_suffix(".tflite").write_bytes(_written(model))


class _Aligned(flatbuffers.Builder):
    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803 - the library's
        return super().StartVector(elemSize, numElems, ALIGNED if elemSize == 1 else alignment)


def _written(model: Model) -> bytes:
    builder = _Aligned(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def opened(file: Path) -> Answer:
    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    [given], [found] = interpreter.get_input_details(), interpreter.get_output_details()
    fed = FEEDING[given["dtype"]]
    scale, zero_point = found["quantization"] if found["dtype"] == np.int8 else (1.0, 0)

    def answer(picture: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], fed(picture))
        interpreter.invoke()
        return (interpreter.get_tensor(found["index"]).astype(np.float32) - zero_point) * np.float32(scale)

    return answer


def _as_codes(picture: np.ndarray) -> np.ndarray:
    """Less 128: the highest bit, turned over."""
    return (picture ^ np.uint8(128)).view(np.int8)


FEEDING: dict[type, Callable[[np.ndarray], np.ndarray]] = {
    np.float32: lambda picture: picture.astype(np.float32),
    np.int8: _as_codes,
}


def describe(file: Path) -> Described:
    """Types are those of the weights of products, and those that products with weights take."""
    model = flatbuffer_utils.read_model(str(file))
    operators = Counter(_operator(model, step) for graph in model.subgraphs for step in graph.operators)
    products = [pair for graph in model.subgraphs for pair in _products(model, graph)]
    return Described(
        runtime=f"LiteRT {version('ai-edge-litert')}",
        kind=_kind(model, products),
        types=Counter(_type(tensor) for pair in products for tensor in pair),
        operators=operators,
        input=_type(model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]),
        transposes=operators["TRANSPOSE"],
    )


def _kind(model: Model, products: list[tuple[Tensor, Tensor]]) -> str:
    """All that flows counts here, but weights that are widened as they are loaded."""
    stored = {_type(weights) for weights, _ in products}
    flowing = {_type(tensor) for graph in model.subgraphs for tensor in _flowing(model, graph)}
    if stored <= {"float32", "float16"} and flowing <= FLOATS | {"int32"}:
        return " and ".join(sorted(stored)) or "without weights"
    if stored == {"int8"} and flowing <= FLOATS | {"int32"}:
        return "dynamic-range"
    return "full-integer" if stored == {"int8"} and flowing <= INTEGERS else "partly integer"


def _products(model: Model, graph: Any) -> list[tuple[Tensor, Tensor]]:
    """Weights as they are stored, and what is multiplied by them; int8 weights have a scale for each channel."""
    widened = {step.outputs[0]: step.inputs[0] for step in _widening(model, graph)}
    found: list[tuple[Tensor, Tensor]] = []
    for step in graph.operators:
        axis = CHANNELS.get(_operator(model, step))
        if axis is None:
            continue
        taken, weights = (graph.tensors[widened.get(index, index)] for index in step.inputs[:2])
        if _is_constant(model, weights):
            found.append((weights, taken))
            channels = weights.shape[axis]
            if _type(weights) == "int8" and len(weights.quantization.scale) != channels:
                raise ValueError(f"{len(weights.quantization.scale)} scales for weights of {channels} channels")
    return found


def _widening(model: Model, graph: Any) -> list[Any]:
    return [
        step
        for step in graph.operators
        if _operator(model, step) == "DEQUANTIZE" and _type(graph.tensors[step.inputs[0]]) == "float16"
    ]


def _flowing(model: Model, graph: Any) -> list[Tensor]:
    loaded = {step.outputs[0] for step in _widening(model, graph)}
    return [
        tensor for index, tensor in enumerate(graph.tensors) if index not in loaded and not _is_constant(model, tensor)
    ]


def _is_constant(model: Model, tensor: Tensor) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _operator(model: Model, step: Any) -> str:
    code = model.operatorCodes[step.opcodeIndex]
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _type(tensor: Tensor) -> str:
    return TYPES[tensor.type].lower()


def _grid(tensor: Tensor) -> tuple[float, int]:
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])


if __name__ == "__main__":
    kinds = {f.__name__: f for f in (float32, float16, dynamic, int8)}
    protocol.main(convert=kinds, answer=opened, describe=describe)
