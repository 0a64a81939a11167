"""A small file as export writes it, of random weights, that answers unlike pictures unlike."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def write(path: Path, classes: tuple[str, ...], size: int, fit: str) -> Path:
    random = np.random.default_rng(3)
    window = [(size - 1) // 4] * 2
    weights = {
        "scale": np.float32(1 / 64),
        "filters": random.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "last": random.normal(size=(8 * 4, len(classes))).astype(np.float32),
        "shift": np.zeros(len(classes), np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "filters"], ["edges"], strides=[2, 2]),
        helper.make_node("Relu", ["edges"], ["bent"]),
        helper.make_node("AveragePool", ["bent"], ["pooled"], kernel_shape=window, strides=window),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "last", "shift"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(classes)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    told = {"dataset": "made", "image_size": size, "fit": f"{fit}, antialiased bicubic", "model": "0" * 64}
    lists = {"classes": list(classes), "mean": [0.0] * 3, "std": [1.0] * 3}
    helper.set_model_props(model, {k: str(v) for k, v in told.items()} | {k: json.dumps(v) for k, v in lists.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    usual = random.integers(0, 256, (64, size // 4, size // 4, 3)).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    logits = np.asarray(onnxruntime.InferenceSession(path).run(None, {"images": usual})[0])
    [shift] = [one for one in model.graph.initializer if one.name == "shift"]
    shift.CopyFrom(numpy_helper.from_array(-logits.mean(axis=0), "shift"))  # so that no class always wins
    onnx.save(model, path)
    return path


def probabilities(file: Path, square: np.ndarray) -> dict[str, float]:
    """What the file answers here of one picture, by class."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    logits = np.asarray(session.run(None, {"images": square[None]})[0], np.float64)[0]
    powers = np.exp(logits - logits.max())
    return dict(zip(classes, (powers / powers.sum()).tolist(), strict=True))
