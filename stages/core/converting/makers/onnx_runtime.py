"""Files for ONNX Runtime: those that are shipped, in float16, and in its own format for small builds of it."""

import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper
from onnxruntime import GraphOptimizationLevel as Level  # pyright: ignore[reportAttributeAccessIssue]

from stages.core.converting.makers import protocol
from stages.core.converting.makers.protocol import Answer, Described, Handed

INPUT = "images"
CPU = ["CPUExecutionProvider"]
FOR_ANY_PROCESSOR = ["NchwcTransformer"]  # what it does is for the processor at hand, and makes the file larger
GROWS, NODE = 1.1, 1024  # times the numbers, and bytes for each operator: what the format may take
LARGEST = 65504.0  # of float16
ROOM = 4.0  # times what calibration pictures showed
BATCH = 64
INTEGERS = frozenset({"int8", "uint8", "int4", "uint4"})
DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


def float32(handed: Handed, stem: Path) -> None:
    shutil.copyfile(handed.shipped, stem.with_suffix(".onnx"))


def packed(handed: Handed, stem: Path) -> None:
    shutil.copyfile(handed.packed, stem.with_suffix(".onnx"))


def ort_float32(handed: Handed, stem: Path) -> None:
    _save_ort(handed.onnx, stem.with_suffix(".ort"))


def ort_int8(handed: Handed, stem: Path) -> None:
    """Nothing is unpacked when such a file is loaded, so that its codes lie in it as int8, whatever their bits."""
    _save_ort(handed.integers, stem.with_suffix(".ort"))


def _save_ort(path: Path, to: Path) -> None:
    """Optimised first, and then in the other format: in one step, numbers stay in the file that nobody reads."""
    optimised = to.with_suffix(".optimised.onnx")
    _save(path, optimised, Level.ORT_ENABLE_ALL, "ONNX")
    _save(optimised, to, Level.ORT_DISABLE_ALL, "ORT")
    optimised.unlink()
    graph = onnx.load(path).graph
    most = GROWS * sum(numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer) + NODE * len(graph.node)
    if to.stat().st_size > most:
        raise ValueError(f"{to.name} has {to.stat().st_size} bytes, more than {most:.0f}: it holds numbers unpacked")


def float16(handed: Handed, stem: Path) -> None:
    """Weights and arithmetic. Normalisation and logits are float32, and what comes near the end of the range."""
    from onnxruntime.transformers import float16 as library
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(handed.onnx)
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    kept = _normalising(model) | _too_large(model, handed.calibration)
    result = library.convert_float_to_float16(model, keep_io_types=True, node_block_list=sorted(kept))
    tidied = OnnxModel(result)
    tidied.remove_cascaded_cast_nodes()
    tidied.remove_useless_cast_nodes()
    tidied.topological_sort()
    for told in result.metadata_props:
        told.value = "float16" if told.key == "weights" else told.value
    onnx.checker.check_model(result, full_check=True)
    onnx.save(result, stem.with_suffix(".onnx"))


def _normalising(model: ModelProto) -> set[str]:
    """From the pixels to the first product."""
    kept: set[str] = set()
    reached = {INPUT}
    for node in model.graph.node:
        if reached.intersection(node.input) and node.op_type in ("Transpose", "Cast", "Mul", "Add"):
            kept.add(node.name)
            reached.update(node.output)
        elif reached.intersection(node.input):
            break
    return kept


def _too_large(model: ModelProto, pictures: np.ndarray) -> set[str]:
    makers = {name: node.name for node in model.graph.node for name in node.output if name}
    session = _session(_showing(model).SerializeToString(), Level.ORT_DISABLE_ALL)
    found: set[str] = set()
    for batch in np.array_split(pictures, math.ceil(len(pictures) / BATCH)):
        answers = session.run(None, {INPUT: np.ascontiguousarray(batch)})
        for shown, answer in zip(session.get_outputs(), answers, strict=True):
            if shown.type == "tensor(float)" and np.abs(np.asarray(answer)).max(initial=0) * ROOM > LARGEST:
                found.add(makers[shown.name])
    return found


def opened(file: Path) -> Answer:
    session = _session(file, Level.ORT_ENABLE_ALL)

    def answer(picture: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {INPUT: picture})[0])

    return answer


def describe(file: Path) -> Described:
    """Pairs of QuantizeLinear and DequantizeLinear, and what unpacks weights, are told as what ONNX Runtime makes of
    them: kernels of integers."""
    model = _graph(file)
    operators = Counter(node.op_type for node in model.graph.node)
    weights = _weights(model)
    return Described(
        runtime=f"ONNX Runtime {onnxruntime.__version__}",
        kind=_kind(set(weights), operators),
        types=weights + _flowing(model),
        operators=operators,
        input=_type(_session(file, Level.ORT_DISABLE_ALL).get_inputs()[0].type),
        transposes=operators["Transpose"],
    )


def _graph(file: Path) -> ModelProto:
    if file.suffix == ".onnx":
        model = onnx.load(file)
        if not model.functions and all(node.op_type != "DequantizeLinear" for node in model.graph.node):
            return model
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "shown.onnx"
        _save(file, shown, Level.ORT_ENABLE_ALL, "ONNX")
        return onnx.load(shown)


def _weights(model: ModelProto) -> Counter[str]:
    """Of matrices and filters; biases, scales and shapes are left out."""
    tensors = (tensor for tensor in model.graph.initializer if sum(size > 1 for size in tensor.dims) > 1)
    return Counter(_type(TensorProto.DataType.Name(tensor.data_type).lower()) for tensor in tensors)


def _flowing(model: ModelProto) -> Counter[str]:
    """As ONNX Runtime infers them, which knows its own operators, too."""
    session = _session(_showing(model).SerializeToString(), Level.ORT_DISABLE_ALL)
    return Counter(_type(value.type) for value in session.get_outputs())


def _kind(weights: set[str], operators: Counter[str]) -> str:
    if not weights & INTEGERS:
        return " and ".join(sorted(weights))
    if operators.keys() & DYNAMIC:
        return "dynamic-range"
    return "full-integer" if weights <= INTEGERS else "partly integer"


def _type(told: str) -> str:
    name = told.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _showing(model: ModelProto) -> ModelProto:
    """The same, with all that flows among its outputs."""
    shown = ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(ValueInfoProto(name=name) for node in model.graph.node for name in node.output if name)
    return shown


def _save(path: Path, to: Path, level: Level, form: str) -> None:
    options = _options(level)
    options.optimized_model_filepath = str(to)
    options.add_session_config_entry("session.save_model_format", form)
    onnxruntime.InferenceSession(path, options, providers=CPU, disabled_optimizers=FOR_ANY_PROCESSOR)


def _session(model: Path | bytes, level: Level) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, _options(level), providers=CPU)


def _options(level: Level) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return options


if __name__ == "__main__":
    kinds = {f.__name__: f for f in (float32, packed, float16, ort_float32, ort_int8)}
    protocol.main(convert=kinds, answer=opened, describe=describe)
