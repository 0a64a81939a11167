"""Exported files whose answers a person can reckon: the logit of a class is the mean of one colour, divided by 32."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy import special

CLASSES = ("red", "green", "blue")
SIZE = 8
FACTS = {"schema": "2", "classes": json.dumps(CLASSES), "image_size": str(SIZE), "fit": "crop, antialiased bicubic"}


def write(path: Path, facts: Mapping[str, str | None] | None = None, divisor: str = "constant") -> Path:
    """`divisor` may be the batch's own largest value, as in files that find ranges at every call."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMax", ["means"], ["batch"], keepdims=0),
        helper.make_node("Div", ["means", divisor], ["logits"]),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    constant = numpy_helper.from_array(np.array(32, np.float32), "constant")
    model = helper.make_model(
        helper.make_graph(nodes, "made", [given], [found], [constant]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    told = FACTS | dict(facts or {})
    helper.set_model_props(model, {name: value for name, value in told.items() if value is not None})
    onnx.save(model, path)
    return path


def expected(*colours: tuple[int, int, int]) -> np.ndarray:
    return special.softmax(np.array(colours, np.float64) / 32, axis=1)


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path
