"""What a file runs as, and that its integer kernels compute what plain integer arithmetic does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from stages.core.shipping import packing, running

SIZE, CLASSES = 8, 3
MEASURED = ("products", "additions", "pooling")
ALL = {"first", "middle", "inner", "addition", "largest", "pooling", "last"}


class Drawn:
    """A residual network in QDQ form; what is `floating` has weights that are no integers, or is not rounded after."""

    def __init__(self, *floating: str, width: int = 6) -> None:
        self.floating, self.width = floating, width
        self.generator = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def model(self) -> ModelProto:
        pixels = self.node("Cast", self.node("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
        scaled = self.node("Mul", pixels, self.constant(np.float32(1 / 64)))
        seen = self.rounded("first", self.node("Add", scaled, self.constant(np.float32(-2))), 4 / 255, 128)
        first = self.layer("first", seen, (self.width, 3, 3, 3), 4 / 255)
        relu = self.rounded("first", self.node("Relu", first), 0.02, 0)
        inner = self.rounded("inner", self.layer("middle", relu, (self.width, self.width, 3, 3), 0.02), 0.025, 120)
        added = self.rounded("addition", self.node("Relu", self.node("Add", inner, relu)), 0.03, 0)
        large = self.node("MaxPool", added, kernel_shape=[2, 2], strides=[2, 2])
        mean = self.rounded(
            "pooling", self.node("GlobalAveragePool", self.rounded("largest", large, 0.03, 0)), 0.015, 0
        )
        flat = self.rounded("last", self.node("Flatten", mean), 0.015, 0)
        logits = self.rounded("last", self.layer("last", flat, (CLASSES, self.width), 0.015), 0.02, 130)
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
        answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
        graph = helper.make_graph(self.nodes, "drawn", [images], [answer], self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def constant(self, value: Any) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.tensors)}"))
        return self.tensors[-1].name

    def node(self, operator: str, *read: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, read, [f"t{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def rounded(self, label: str, name: str, step: float, zero: int) -> str:
        if label in self.floating:
            return name
        grid = self.constant(np.float32(step)), self.constant(np.uint8(zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", name, *grid), *grid)

    def layer(self, label: str, name: str, shape: tuple[int, ...], read_step: float) -> str:
        weight, bias = self.real(shape) if label in self.floating else self.coded(shape, read_step)
        if len(shape) == 2:
            return self.node("Gemm", name, weight, bias, transB=1)
        return self.node("Conv", name, weight, bias, kernel_shape=shape[2:], pads=[1, 1, 1, 1])

    def real(self, shape: tuple[int, ...]) -> tuple[str, str]:
        weight, bias = (
            self.constant(self.generator.normal(size=size).astype(np.float32)) for size in (shape, shape[:1])
        )
        return weight, bias

    def coded(self, shape: tuple[int, ...], read_step: float) -> tuple[str, str]:
        codes = self.generator.integers(-127, 128, shape).astype(np.int8)
        steps = (self.generator.uniform(0.5, 1, shape[0]) / (40 * np.sqrt(codes[0].size))).astype(np.float32)
        bias = self.generator.integers(-500, 500, shape[0]).astype(np.int32)
        grids = (codes, steps, np.zeros(shape[0], np.int8)), (bias, np.float32(read_step) * steps, np.zeros_like(bias))
        weight, shift = (self.node("DequantizeLinear", *map(self.constant, grid), axis=0) for grid in grids)
        return weight, shift


@dataclass(frozen=True)
class Scaled:
    """Whole numbers, and what one of them stands for: for all, or for each channel along the second axis."""

    codes: np.ndarray
    step: np.ndarray

    def real(self) -> np.ndarray:
        return self.codes * (self.step.reshape(-1, *[1] * (self.codes.ndim - 2)) if self.step.size > 1 else self.step)


def dequantized(codes: np.ndarray, step: np.ndarray, zero: np.ndarray) -> Scaled:
    zero = zero.reshape(-1, *[1] * (codes.ndim - 1)) if zero.size > 1 else zero
    return Scaled(codes.astype(np.int64) - zero.astype(np.int64), step.astype(np.float64))


def quantized(value: Any, step: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """np.rint rounds half to even."""
    real = value.real() if isinstance(value, Scaled) else value
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(real / step) + zero, limits.min, limits.max).astype(zero.dtype)


def convolved(
    x: Scaled, w: Scaled, bias: Scaled, pads: list[int], strides: tuple[int, int] = (1, 1), **_: Any
) -> Scaled:
    around = [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])]
    windows = sliding_window_view(np.pad(x.codes, around), w.codes.shape[2:], axis=(2, 3))
    sums = np.einsum("ncyxhw,ochw->noyx", windows[:, :, :: strides[0], :: strides[1]], w.codes)
    return with_bias(Scaled(sums + bias.codes[:, None, None], x.step * w.step), bias)


def multiplied(x: Scaled, w: Scaled, bias: Scaled, **_: Any) -> Scaled:
    return with_bias(Scaled(x.codes @ w.codes.T + bias.codes, x.step * w.step), bias)


def with_bias(found: Scaled, bias: Scaled) -> Scaled:
    """The bias is counted in the steps of the products, and so adds as a whole number."""
    assert np.allclose(found.step, bias.step, rtol=1e-6)
    return found


def added(one: Any, other: Any) -> np.ndarray:
    return np.add(*(value.real() if isinstance(value, Scaled) else value for value in (one, other)))


def relu(x: Any) -> Any:
    return Scaled(x.codes.clip(0), x.step) if isinstance(x, Scaled) else x.clip(0)


def largest(x: Scaled, kernel_shape: list[int], **_: Any) -> Scaled:
    rows, columns = kernel_shape
    windows = sliding_window_view(x.codes, (rows, columns), axis=(2, 3))[:, :, ::rows, ::columns]
    return Scaled(windows.max(axis=(4, 5)), x.step)


def mean(x: Scaled) -> Scaled:
    return Scaled(x.codes.sum(axis=(2, 3), keepdims=True), x.step / x.codes[0, 0].size)


STEPS: dict[str, Callable[..., Any]] = {
    "Transpose": lambda x, perm: x.transpose(perm),
    "Cast": lambda x, to: x.astype(helper.tensor_dtype_to_np_dtype(to)),
    "Mul": np.multiply,
    "Add": added,
    "Clip": lambda x, low, high: np.clip(x, low, high),
    "Relu": relu,
    "QuantizeLinear": lambda x, step, zero, **_: quantized(x, step, zero),
    "DequantizeLinear": lambda x, step, zero, **_: dequantized(x, step, zero),
    "Conv": convolved,
    "Gemm": multiplied,
    "MaxPool": largest,
    "GlobalAveragePool": mean,
    "Flatten": lambda x, **_: Scaled(x.codes.reshape(len(x.codes), -1), x.step),
    "Identity": lambda x: x,
}


def reference(model: ModelProto, images: np.ndarray, known: dict[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
    """What flows everywhere, and what each step gave that rounds, before it did. What follows on something `known` is
    computed from that."""
    values: dict[str, Any] = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values["images"] = images
    found, unrounded = dict[str, Any](), dict[str, np.ndarray]()
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        name, read = node.output[0], [values[name] for name in node.input]
        values[name] = found[name] = STEPS[node.op_type](*read, **attributes)
        if node.op_type == "QuantizeLinear":
            unrounded[name] = (read[0].real() if isinstance(read[0], Scaled) else read[0]) / read[1]
            values[name] = known.get(name, found[name])
    return found, unrounded


def shown(model: ModelProto) -> ModelProto:
    """With an answer for each point at which it rounds."""
    changed = ModelProto()
    changed.CopyFrom(model)
    rounded = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    changed.graph.output.extend(ValueInfoProto(name=name) for name in rounded)
    return changed


def answers(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(None, {"images": images})), strict=True))


def saved(model: ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "drawn.onnx")
    return folder / "drawn.onnx"


IMAGES = np.random.default_rng(1).integers(0, 256, (100, SIZE, SIZE, 3), dtype=np.uint8)


def test_integer_kernels_give_what_plain_arithmetic_gives(tmp_path: Path) -> None:
    """Step by step to the bit; but a sum of two activations, which lies halfway, may be rounded either way."""
    model = Drawn().model()
    assert not any(running.operators(saved(shown(model), tmp_path)).floating[kind] for kind in MEASURED)
    kernels = answers(shown(model), IMAGES)
    expected, unrounded = reference(model, IMAGES, kernels)
    assert len(unrounded) == 8
    sums = {node.output[0] for node in model.graph.node if node.op_type == "Relu" and node.input[0] in added_in(model)}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            name = node.output[0]
            apart = np.abs(kernels[name].astype(int) - expected[name].astype(int))
            assert len(np.unique(kernels[name])) > 50, "a step that says nothing"
            if node.input[0] in sums:
                halfway = np.abs(unrounded[name] % 1 - 0.5) < 1e-4
                assert apart[~halfway].max() == 0 < apart[halfway].max() <= 1
            else:
                assert apart.max() == 0


def test_a_whole_network_stays_within_a_step(tmp_path: Path) -> None:
    model = Drawn().model()
    kernels = answers(shown(model), IMAGES)
    expected, unrounded = reference(model, IMAGES, {})
    for name in unrounded:
        assert np.abs(kernels[name].astype(int) - expected[name].astype(int)).max() <= 1, name
    assert np.abs(kernels["logits"] - expected["logits"].real()).max() < 0.0201


def added_in(model: ModelProto) -> set[str]:
    constant = {tensor.name for tensor in model.graph.initializer}
    return {node.output[0] for node in model.graph.node if node.op_type == "Add" and constant.isdisjoint(node.input)}


def totals(counts: dict[str, dict[str, int]]) -> list[int]:
    return [sum(counts[kind].values()) for kind in MEASURED]


@pytest.mark.parametrize(
    ("floating", "integer", "in_float", "left_over", "first_and_last"),
    [
        ((), [3, 1, 2], [0, 0, 0], {}, (True, True)),
        (("pooling",), [3, 1, 1], [0, 0, 1], {"DequantizeLinear": 1, "QuantizeLinear": 1}, (True, True)),
        (("last",), [2, 1, 2], [1, 0, 0], {"DequantizeLinear": 1}, (True, False)),
        (("inner",), [2, 0, 2], [1, 1, 0], {"DequantizeLinear": 4, "QuantizeLinear": 1}, (True, True)),
        (sorted(ALL), [0, 0, 0], [3, 1, 2], {}, (False, False)),
    ],
    ids=["nothing", "pooling", "last layer", "residual", "all"],
)
def test_what_is_left_in_floating_point_is_told(
    tmp_path: Path,
    floating: Sequence[str],
    integer: list[int],
    in_float: list[int],
    left_over: dict[str, int],
    first_and_last: tuple[bool, bool],
) -> None:
    """Where it need not round, ONNX Runtime adds within the convolution, and converts its weight at each call."""
    found = running.operators(saved(Drawn(*floating).model(), tmp_path))
    assert (totals(found.integer), totals(found.floating)) == (integer, in_float)
    assert found.conversions == left_over
    assert (found.first_is_integer, found.last_is_integer) == first_and_last
    assert found.floating["others"].items() >= {"Mul": 1, "Add": 1}.items(), "the normalisation of the picture"
    assert set(found.ends) <= {"Cast", "QuantizeLinear", "DequantizeLinear"}
    kernels = running.kernels(tmp_path / "drawn.onnx")
    assert (kernels["integer_kernels"], kernels["float_kernels"]) == (integer[0], in_float[0])


def test_the_operators_of_integers_are_named(tmp_path: Path) -> None:
    found = running.operators(saved(Drawn().model(), tmp_path))
    assert found.integer["products"] == {"QLinearConv": 2, "QGemm": 1}
    assert found.integer["additions"] == {"QLinearAdd": 1}
    assert "QLinearGlobalAveragePool" in found.integer["pooling"]
    assert "Flatten" in found.integer["others"]
    assert found.ends == {"Cast": 1, "QuantizeLinear": 1, "DequantizeLinear": 1}


def test_a_packed_file_runs_the_same_steps(tmp_path: Path) -> None:
    model = Drawn(width=48).model()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            codes = numpy_helper.to_array(tensor).copy()
            codes[np.random.default_rng(0).random(codes.shape) < 0.95] = 0
            tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
    plain = running.operators(saved(model, tmp_path))
    packing.pack(model)
    assert packing.packed(saved(model, tmp_path))
    assert running.operators(tmp_path / "drawn.onnx") == plain
    assert not plain.conversions


def test_products_with_inputs_that_find_their_range_are_integer(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (8, 4)).astype(np.int8)
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(0.01, np.float32), "s")]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "step", "zero"]),
        helper.make_node("MatMulInteger", ["codes", "w", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["step", "s"], ["both"]),
        helper.make_node("Mul", ["real", "both"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name, width in (("x", 8), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "dynamic", ends[:1], ends[1:], tensors)
    path = saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    assert running.kernels(path) == {"integer_kernels": 1, "float_kernels": 0, "activation_kernels": 0}
    found = running.operators(path)
    assert totals(found.integer) == [1, 0, 0]
    assert found.floating["others"] == {"Relu": 1}
    assert running.zeros(path) == float((weight == 0).mean())
