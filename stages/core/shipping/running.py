"""A shipped file, run by an unmodified ONNX Runtime: what it answers, and with which kernels."""

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, numpy_helper
from onnxruntime import GraphOptimizationLevel  # pyright: ignore[reportAttributeAccessIssue]

from stages.core.running.errors import Refusal

BATCH = 256
INTEGER_KERNELS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger"})
FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Einsum", "ConvTranspose"}
)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """`threads` 0 takes every core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no base class in common but this
        raise Refusal(f"{path} does not load in ONNX Runtime: {error}") from error


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    """Answers for pictures as they are stored: uint8, height x width x RGB."""
    running = session(path, threads=0)
    batches = (np.ascontiguousarray(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
    return np.concatenate([np.asarray(running.run(None, {"images": batch})[0]) for batch in batches])


def clock(session: onnxruntime.InferenceSession, picture: np.ndarray, calls: int) -> np.ndarray:
    feed = {"images": picture}
    milliseconds = np.empty(calls)
    for call in range(calls):
        began = time.perf_counter_ns()
        session.run(None, feed)
        milliseconds[call] = (time.perf_counter_ns() - began) / 1e6
    return milliseconds


def facts(path: Path) -> dict[str, str]:
    return dict(session(path, threads=1).get_modelmeta().custom_metadata_map)


def classes(path: Path) -> tuple[str, ...]:
    return tuple(json.loads(facts(path)["classes"]))


def tensor_bytes(path: Path) -> int:
    """What the numbers take once they are unpacked; the rest is the graph, which weighs the same at any precision."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in folded(path).initializer)


def zeros(path: Path) -> float:
    """The share of exact zeros in the weights of convolutions and linear layers; of integers, the codes count."""
    weights = list(_weights(folded(path)).values())
    return 1 - sum(int(np.count_nonzero(weight)) for weight in weights) / sum(weight.size for weight in weights)


def _weights(graph: GraphProto) -> dict[str, np.ndarray]:
    """Of every product, whatever stands between it and the numbers, as long as this hangs on nothing else."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    origin = {name: name for name in tensors}
    found: dict[str, np.ndarray] = {}
    for node in graph.node:  # each node after those that it reads
        if node.input and all(name in origin for name in node.input if name):
            origin |= dict.fromkeys(node.output, origin[node.input[0]])
        elif node.op_type in FLOAT_KERNELS:
            found |= {origin[n]: numpy_helper.to_array(tensors[origin[n]]) for n in node.input[:2] if n in origin}
    return found


def kernels(path: Path) -> dict[str, int]:
    """How many products run as integers, and how many not, read off the graph that ONNX Runtime really runs.

    A product of two activations, as in attention, is counted by itself: it has no weight that could be an integer. What
    only scales its channels is none: ONNX Runtime writes a BatchNorm so, if no convolution stands before it.
    """
    graph = _optimised(path, GraphOptimizationLevel.ORT_ENABLE_ALL)
    constant = {tensor.name for tensor in graph.initializer}
    scales = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[1:] == [1, 1, 1]}
    used = Counter[str]()
    for node in graph.node:  # each node after those that it reads
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
        elif node.op_type in INTEGER_KERNELS:
            used["integer_kernels"] += 1
        elif node.op_type in FLOAT_KERNELS and node.input[1] not in scales:
            used["float_kernels" if constant.intersection(node.input[:2]) else "activation_kernels"] += 1
    return {name: used[name] for name in ("integer_kernels", "float_kernels", "activation_kernels")}


def folded(path: Path) -> GraphProto:
    """The file with all constants unpacked: ONNX Runtime's first step, before layouts are padded and kernels chosen."""
    return _optimised(path, GraphOptimizationLevel.ORT_ENABLE_BASIC)


def _optimised(path: Path, level: GraphOptimizationLevel) -> GraphProto:
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.graph_optimization_level = level
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath).graph
