"""A shipped file, run by an unmodified ONNX Runtime: what it answers, and with which kernels."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from stages.core.running.errors import Refusal

BATCH = 256
INTEGER_KERNELS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger"})
FLOAT_KERNELS = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})


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


def facts(path: Path) -> dict[str, str]:
    return dict(session(path, threads=1).get_modelmeta().custom_metadata_map)


def classes(path: Path) -> tuple[str, ...]:
    return tuple(json.loads(facts(path)["classes"]))


def tensor_bytes(path: Path) -> int:
    """What the numbers of the file take; the rest is the graph, which weighs the same at any precision."""
    return sum(len(numpy_helper.to_array(tensor).tobytes()) for tensor in onnx.load(path).graph.initializer)


def kernels(path: Path) -> dict[str, int]:
    """How many convolutions and matrix products run as integers, read off the graph that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        used = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    return {
        "integer_kernels": sum(used[name] for name in INTEGER_KERNELS),
        "float_kernels": sum(used[name] for name in FLOAT_KERNELS),
    }
