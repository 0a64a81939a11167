"""Which weights overflow where pairs of products are added in 16 bits, and what keeps them from it."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from stages.core.shipping import portable
from tests import saturation
from tests.test_kernels import ALL, Drawn

RANGE = np.iinfo(np.int16)


def overflows(row: list[int]) -> bool:
    """By trying: any two weights, with inputs at the ends of uint8."""
    sums = [a * x + b * y for a, b in itertools.combinations([*row, 0], 2) for x in (0, 255) for y in (0, 255)]
    return not RANGE.min <= min(sums) <= max(sums) <= RANGE.max


EDGES = [[64, 64], [64, 65], [-64, -64], [-64, -65], [127, -128], [127, 1], [127, 2], [-128, 0], [-128, -1], [0, 0]]


def test_a_pair_is_too_large_where_trying_overflows() -> None:
    generator = np.random.default_rng(0)
    rows = [np.clip(generator.normal(0, 60, 6), -128, 127).astype(int).tolist() for _ in range(200)]
    for row in [*EDGES, *rows]:
        assert portable.too_large(torch.tensor([row], dtype=torch.int8)).tolist() == [overflows(row)], row
    assert 20 < sum(map(overflows, rows)) < 180, "both happen"
    assert not portable.too_large(torch.tensor([[127], [-128]], dtype=torch.int8)).any()


@pytest.mark.parametrize("shape", [(40, 5, 3, 3), (40, 7), (40, 1, 2, 2)])
def test_reduced_codes_are_the_nearest_that_cannot_overflow(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    widths = torch.linspace(5, 60, 40).reshape(-1, *[1] * (len(shape) - 1))
    codes = (torch.randn(shape, generator=generator) * widths).clamp(-128, 127).to(torch.int8)
    scale = torch.rand(40, *[1] * (len(shape) - 1), generator=generator) + 0.1
    reduced, wider = portable.narrow(codes, scale)
    assert (reduced.dtype, reduced.shape, wider.shape) == (codes.dtype, codes.shape, scale.shape)
    risky = torch.tensor([overflows(row) for row in codes.flatten(1).tolist()])
    assert 0 < risky.sum() < len(risky)
    assert torch.equal(reduced[~risky], codes[~risky])
    assert torch.equal(wider[~risky], scale[~risky])
    assert (reduced[risky].flatten(1).abs().amax(dim=1) == 64).all(), "the range is used"
    assert not any(map(overflows, reduced.flatten(1).tolist()))
    apart = (reduced * wider - codes * scale).abs()
    assert (apart <= wider * 0.5001).all()


def test_one_scale_for_all_stays_one() -> None:
    codes = torch.tensor([[1, 2, 3], [127, 100, -3]], dtype=torch.int8)
    reduced, scale = portable.narrow(codes, torch.tensor(0.5))
    assert reduced.tolist() == [[1, 1, 2], [64, 50, -2]]
    assert scale.item() == 0.5 * 127 / 64
    safe = codes // 2
    assert torch.equal(portable.narrow(safe, torch.tensor([0.5]))[0], safe)


@pytest.mark.parametrize(
    ("name", "largest", "expected"),
    [("whole", 127, 3), ("7 bits", 64, 0), ("none", 0, 0)],
    ids=["8 bits", "7 bits", "0"],
)
def test_the_weights_of_a_file_are_counted(tmp_path: Path, name: str, largest: int, expected: int) -> None:
    model = Drawn().model()
    for tensor in model.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(codes.clip(-largest, largest), tensor.name))
    onnx.save(model, tmp_path / "file.onnx")
    assert portable.saturates(tmp_path / "file.onnx") == expected


def test_weights_of_floating_point_do_not_overflow(tmp_path: Path) -> None:
    model = Drawn(*ALL).model()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1000), tensor.name))
    onnx.save(model, tmp_path / "file.onnx")
    assert portable.saturates(tmp_path / "file.onnx") == 0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Gemm transposed"])
@pytest.mark.parametrize("along", [False, True])
def test_what_is_added_up_counts_whichever_way_a_matrix_lies(
    tmp_path: Path, operator: str, turned: bool, along: bool
) -> None:
    """Two large weights that meet in one sum, and the same two that do not."""
    codes = np.zeros((4, 6), np.int8)  # channels x inputs
    codes[[0, 0] if along else [0, 1], [1, 2] if along else [1, 1]] = 100
    stored = codes if (operator == "Gemm transposed") != turned else codes.T
    nodes = [helper.make_node("DequantizeLinear", ["codes", "step"], ["weight"])]
    if turned:
        nodes.append(helper.make_node("Transpose", ["weight"], ["other"], perm=[1, 0]))
    read = ["x", nodes[-1].output[0]]
    nodes.append(helper.make_node(operator.split()[0], read, ["y"]))
    if operator == "Gemm transposed":
        nodes[-1].attribute.append(helper.make_attribute("transB", 1))
    tensors = [numpy_helper.from_array(stored, "codes"), numpy_helper.from_array(np.array(0.1, np.float32), "step")]
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", width]) for end, width in (("x", 6), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "matrix", ends[:1], ends[1:], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "file.onnx"
    )
    assert portable.saturates(tmp_path / "file.onnx") == int(along)


@pytest.mark.slow
@pytest.mark.skipif(saturation.QEMU is None, reason="no qemu-x86_64 here (Debian: qemu-user)")
def test_kernels_of_avx2_overflow_and_the_reduced_range_cures_it() -> None:
    """The kernels themselves, on an emulated Haswell, against sums in 32 bits."""
    shares = saturation.wrong("Haswell")
    layers = saturation.layers()
    assert len(shares) == 2 * len(layers) == 16
    for name, layer in layers.items():
        assert portable.too_large(torch.tensor(layer.codes)).any() == name.endswith("full")
        at_risk = name.endswith("full") and name != "depthwise-full"
        assert (shares[name] > 0.9) if at_risk else (shares[name] == 0), name
        assert shares[f"{name}-precise"] == 0, f"{name}: ONNX Runtime's own option"


@pytest.mark.slow
@pytest.mark.skipif(saturation.QEMU is None, reason="no qemu-x86_64 here (Debian: qemu-user)")
@pytest.mark.parametrize("processor", ["Nehalem", "SandyBridge"])
def test_kernels_before_avx2_are_exact(processor: str) -> None:
    assert set(saturation.wrong(processor).values()) == {0}


def test_the_layers_that_are_tried_say_something() -> None:
    """Their answers differ, and none lies at an end of what uint8 holds."""
    for name, layer in saturation.layers().items():
        expected = layer.expected()
        assert len(np.unique(expected)) > 10, name
        assert 0 < expected.min() <= expected.max() < 255, name
