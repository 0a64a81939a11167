"""A shipped file, run by an unmodified ONNX Runtime: what it answers, and with which kernels."""

import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper
from onnxruntime import GraphOptimizationLevel  # pyright: ignore[reportAttributeAccessIssue]

from stages.core.running.errors import Refusal
from stages.core.shipping import steps
from stages.core.shipping.sessions import session
from stages.core.shipping.steps import Operators

BATCH = 256


def logits(path: Path, images: np.ndarray, parts: int | None = None) -> np.ndarray:
    """Answers for pictures as they are stored: uint8, height x width x RGB.

    A file that finds ranges at every call answers by the batch: only in as many `parts` is it the network's equal.
    """
    running = session(path, threads=0)
    batches = np.array_split(images, parts or math.ceil(len(images) / BATCH))
    answers = [running.run(None, {"images": np.ascontiguousarray(batch)})[0] for batch in batches]
    return np.concatenate([np.asarray(answer) for answer in answers])


def facts(path: Path) -> dict[str, str]:
    return dict(session(path, threads=1).get_modelmeta().custom_metadata_map)


def classes(path: Path) -> tuple[str, ...]:
    return tuple(json.loads(facts(path)["classes"]))


def tensor_bytes(path: Path) -> int:
    """What the numbers take once they are unpacked; the rest is the graph, which weighs the same at any precision."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in folded(path).initializer)


def zeros(path: Path) -> float:
    """The share of exact zeros in the weights of convolutions and linear layers; of integers, the codes count."""
    return zero_weights(path) / sum(matrix.size for matrix in weights(folded(path)).values())


def zero_weights(path: Path) -> int:
    return sum(matrix.size - int(np.count_nonzero(matrix)) for matrix in weights(folded(path)).values())


def weights(graph: GraphProto) -> dict[str, np.ndarray]:
    """Of every product, a row for each of its channels, whatever stands between it and the numbers, as long as this
    hangs on nothing else."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    origin, turned = {name: name for name in tensors}, set[str]()
    found: dict[str, np.ndarray] = {}
    for node in graph.node:  # each node after those that it reads
        if node.input and all(name in origin for name in node.input if name):
            origin |= dict.fromkeys(node.output, origin[node.input[0]])
            if (node.op_type == "Transpose") != (node.input[0] in turned):
                turned.update(node.output)
        elif node.op_type in steps.PRODUCTS:
            for at, name in enumerate(node.input[:2]):
                if name in origin:
                    tensor = tensors[origin[name]]
                    found[origin[name]] = steps.rows(node, at, tensor.T if name in turned else tensor)
    return found


def kernels(path: Path) -> dict[str, int]:
    """How many products run as integers, and how many not, read off the graph that ONNX Runtime really runs.

    A product of two activations, as in attention, is counted by itself: it has no weight that could be an integer.
    """
    graph = _optimised(path, GraphOptimizationLevel.ORT_ENABLE_ALL).graph
    constant = {tensor.name for tensor in graph.initializer}
    scales = steps.scales(graph)
    used = Counter[str]()
    for node in graph.node:  # each node after those that it reads
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
        elif node.op_type in steps.INTEGER_KERNELS:
            used["integer_kernels"] += 1
        elif steps.is_product(node, scales):
            used["float_kernels" if constant.intersection(node.input[:2]) else "activation_kernels"] += 1
    return {name: used[name] for name in ("integer_kernels", "float_kernels", "activation_kernels")}


def operators(path: Path) -> Operators:
    """Products and all else, counted in the same graph."""
    model = _optimised(path, GraphOptimizationLevel.ORT_ENABLE_ALL)
    return steps.count(model.graph, _types(model))


def _types(model: ModelProto) -> dict[str, str]:
    """Of all that flows, as ONNX Runtime infers them for its own operators, too, if each is an output."""
    given = {tensor.name: TensorProto.DataType.Name(tensor.data_type).lower() for tensor in model.graph.initializer}
    shown = {value.name for value in model.graph.output}
    flowing = {name for node in model.graph.node for name in node.output if name}
    model.graph.output.extend(ValueInfoProto(name=name) for name in sorted(flowing - shown))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    asked = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = [*asked.get_inputs(), *asked.get_outputs()]
    return given | {value.name: value.type.removeprefix("tensor(").removesuffix(")") for value in values}


def folded(path: Path) -> GraphProto:
    """The file with all constants unpacked: ONNX Runtime's first step, before layouts are padded and kernels chosen."""
    return _optimised(path, GraphOptimizationLevel.ORT_ENABLE_BASIC).graph


def _optimised(path: Path, level: GraphOptimizationLevel) -> ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.graph_optimization_level = level
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as in sessions; a full disk has no error of its own
            raise Refusal(f"{path} cannot be written as ONNX Runtime runs it, in {folder}: {error}") from error
        return onnx.load(options.optimized_model_filepath)
