"""A file of mostly zeros is small, and ONNX Runtime makes of it what it makes of the unpacked file."""

import copy
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as some
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import GraphOptimizationLevel  # pyright: ignore[reportAttributeAccessIssue]
from torch import nn

from stages import benchmark, export
from stages.core import params, quantization
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.networks.artifact import Model
from stages.core.running.errors import Refusal
from stages.core.shipping import gate, packing, running, writing

SIZE = 16
NETWORK = params.ResNet9(name="resnet9", width=0.125)
FACTS = Facts("any", ("a", "b", "c"), SIZE, (0.5,) * 3, (0.25,) * 3, "crop")
LAYERS = 9
KINDS = ("float", "int8")


@dataclasses.dataclass(frozen=True)
class Files:
    """One network, packed and as it was; and how many of its weights are zeros."""

    packed: Path
    plain: Path
    zeros: float


@pytest.fixture(scope="module")
def files(settings: params.Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    folder = tmp_path_factory.mktemp("packed")
    torch.manual_seed(0)
    network = families.build(NETWORK, 3, SIZE).eval()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            layer.weight *= torch.rand_like(layer.weight) > 0.9
    card = artifact.Card(NETWORK, FACTS)
    seen = torch.randn(16, 3, SIZE, SIZE)
    integer = quantization.calibrate(copy.deepcopy(network), settings.quantize.method, [seen])
    codes = [layer.quant_weight().int() for layer in integer.modules() if hasattr(layer, "quant_weight")]  # pyright: ignore[reportCallIssue]
    models = {
        "float": (Model(network, card), [layer.weight for layer in layers]),
        "int8": (Model(integer, dataclasses.replace(card, quantization=settings.quantize.method)), codes),
    }
    found: dict[str, Files] = {}
    for name, (model, weights) in models.items():
        packed, plain = folder / f"{name}.onnx", folder / f"plain-{name}.onnx"
        writing.write(model, packed, 17, {})
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(packing, "pack", lambda _: None)
            writing.write(model, plain, 17, {})
        zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
        found[name] = Files(packed, plain, zeros)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_file_answers_to_the_bit_as_the_plain_one(files: dict[str, Files], kind: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    answers = running.logits(files[kind].packed, images)
    assert np.array_equal(answers, running.logits(files[kind].plain, images))
    assert answers.std() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_executes_the_graph_of_the_plain_file(files: dict[str, Files], kind: str, tmp_path: Path) -> None:
    graphs = [optimised(path, tmp_path) for path in (files[kind].packed, files[kind].plain)]
    steps = [Counter(node.op_type for node in graph.node) for graph in graphs]
    values = [[numpy_helper.to_array(tensor) for tensor in graph.initializer] for graph in graphs]
    numbers = [Counter((value + value.dtype.type(0)).tobytes() for value in found) for found in values]  # -0 is 0
    assert steps[0] == steps[1]
    assert numbers[0] == numbers[1]
    assert running.kernels(files[kind].packed) == running.kernels(files[kind].plain)
    assert running.kernels(files[kind].packed)["integer_kernels"] == (LAYERS if kind == "int8" else 0)


def optimised(path: Path, folder: Path) -> onnx.GraphProto:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_of_a_packed_file(files: dict[str, Files], kind: str) -> None:
    """Only its bytes are others."""
    packed, plain = export.contents(files[kind].packed), export.contents(files[kind].plain)
    assert packed["bytes"] < 0.6 * plain["bytes"]
    assert packed["tensor_bytes"] == plain["tensor_bytes"]
    assert packed["zeros"] == plain["zeros"] == pytest.approx(files[kind].zeros)
    assert files[kind].zeros > 0.89
    assert (packed["packed"], plain["packed"]) == (LAYERS, 0)


def test_zeros_make_no_integers(settings: params.Params, files: dict[str, Files]) -> None:
    """A float file with few numbers left is smaller than any int8 file, and a packed int8 file is no finer one."""
    one, other = ({"accuracy": 0.9} | export.contents(files[kind].packed) for kind in KINDS)
    kernels = {"integer_kernels": LAYERS, "float_kernels": 0}
    limit = settings.export.model_copy(update={"max_int8_size": 0.35})
    gate.integer("quantized", other | kernels, one, limit)
    with pytest.raises(Refusal, match="bytes unpacked, 100% of"):
        gate.integer("quantized", one | kernels, one, limit)


def table(weights: list[np.ndarray], opset: int) -> ModelProto:
    """Reads the rows that it is asked for, of each weight."""
    tensors = [numpy_helper.from_array(weight, f"weight-{at}") for at, weight in enumerate(weights)]
    graph = helper.make_graph(
        [helper.make_node("Gather", [tensor.name, "rows"], [f"read-{tensor.name}"]) for tensor in tensors],
        "table",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["count"])],
        [
            helper.make_tensor_value_info(f"read-{tensor.name}", tensor.data_type, ["count", *tensor.dims[1:]])
            for tensor in tensors
        ],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def sparse(shape: tuple[int, ...], dtype: str, share: float, seed: int = 0) -> np.ndarray:
    """Of any number there is, signed zeros and what is no number included."""
    generator = np.random.default_rng(seed)
    count = int(np.prod(shape))
    numbers = np.frombuffer(generator.bytes(count * np.dtype(dtype).itemsize), dtype)
    return np.where(generator.random(count) < share, numbers.dtype.type(0), numbers).reshape(shape)


def read(model: ModelProto, rows: np.ndarray, level: GraphOptimizationLevel) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(None, {"rows": rows})]


BALLAST = np.zeros((99, 101), np.float32)  # wholly empty, and no multiple of 8: what unpacks is worth its bytes


@given(
    shape=some.lists(some.integers(1, 12), min_size=2, max_size=4),
    dtype=some.sampled_from(["float32", "int8", "float16"]),
    share=some.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
    opset=some.sampled_from([17, 18, 20]),
    seed=some.integers(0, 99),
)
@example(shape=[31, 33], dtype="int8", share=0.9, opset=17, seed=0)
@example(shape=[7, 9, 3, 3], dtype="float32", share=1.0, opset=18, seed=0)
@limits(max_examples=30, deadline=None, database=None, derandomize=True)
def test_a_weight_comes_back_as_it_was(shape: list[int], dtype: str, share: float, opset: int, seed: int) -> None:
    """Folded at loading, and where nothing is folded."""
    weights = [BALLAST, sparse(tuple(shape), dtype, share, seed)]
    model = table(weights, opset)
    before = model.ByteSize()
    packing.pack(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ByteSize() < before - BALLAST.nbytes * 0.9
    rows = np.arange(min(len(BALLAST), shape[0]))
    for level in (GraphOptimizationLevel.ORT_ENABLE_ALL, GraphOptimizationLevel.ORT_DISABLE_ALL):
        for found, weight in zip(read(model, rows, level), weights, strict=True):
            assert found.dtype == weight.dtype
            np.testing.assert_array_equal(found, weight[rows])


def test_another_runtime_reads_the_same() -> None:
    weight = sparse((61, 53), "float32", 0.9)
    model = table([weight], 18)
    packing.pack(model)
    rows = np.arange(61)
    (found,) = ReferenceEvaluator(model).run(None, {"rows": rows})
    np.testing.assert_array_equal(found, weight)


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("int8", 1)])
def test_a_weight_takes_a_bit_for_each_number_and_those_that_are_none(dtype: str, itemsize: int) -> None:
    weight = sparse((511, 513), dtype, 0.9)
    model = table([weight], 18)
    packing.pack(model)
    formula = -(-weight.size // 8) + itemsize * np.count_nonzero(weight)
    assert formula < model.ByteSize() < formula + 1500
    assert model.ByteSize() < {"float32": 0.15, "int8": 0.06}[dtype] * 4 * weight.size


@pytest.mark.parametrize(
    "weights",
    [
        [sparse((64, 64), "float32", 0.0)],
        [sparse((64, 64), "float32", 0.02)],
        [sparse((64, 64), "int8", 0.1)],
        [sparse((14, 16), "float32", 0.9)],
        [np.zeros(9999, np.float32)],
    ],
    ids=["dense", "a bit costs more", "a bit costs more than a code", "what unpacks costs more", "a vector"],
)
def test_what_would_not_become_smaller_stays_to_the_byte(weights: list[np.ndarray]) -> None:
    model = table(weights, 18)
    before = model.SerializeToString()
    packing.pack(model)
    assert model.SerializeToString() == before


def test_each_weight_is_judged_by_itself_and_what_unpacks_is_there_once() -> None:
    weights = [sparse((64, 64), "float32", share) for share in (0.9, 0.0, 0.5, 0.02)]
    weights.append(np.zeros((4, 5), np.float32))  # takes less than a node
    model = table(weights, 18)
    packing.pack(model)
    stay = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith("weight")}
    assert stay == {"weight-1", "weight-3", "weight-4"}
    assert len(model.functions) == 1


def test_loading_is_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes 3 milliseconds, one that takes 5, and a machine that stands still once."""
    opened: list[str] = []
    now = 0

    def session(path: Path, threads: int) -> None:
        nonlocal now
        assert threads == 1
        opened.append(path.stem)
        now += {"a": 3, "b": 5}[path.stem] * 10**6 + (10**9 if len(opened) == 4 else 0)

    monkeypatch.setattr(running, "session", session)
    monkeypatch.setattr(benchmark.time, "perf_counter_ns", lambda: now)
    assert benchmark.loading({"a": Path("a.onnx"), "b": Path("b.onnx")}) == {"a": 3, "b": 5}
    assert opened == ["a", "b"] * benchmark.LOADS
