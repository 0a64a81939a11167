"""A file of few bits is small, and ONNX Runtime makes of it what it makes of the unpacked file."""

import dataclasses
import math
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
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import GraphOptimizationLevel  # pyright: ignore[reportAttributeAccessIssue]
from torch import nn

from stages.core import params
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.networks.artifact import Model
from stages.core.running.errors import Refusal
from stages.core.shipping import gate, packing, running, writing

SIZE = 16
NETWORK = params.ResNet9(name="resnet9", width=0.125)
FACTS = Facts("any", ("a", "b", "c"), SIZE, (0.5,) * 3, (0.25,) * 3, "crop")
SHAPES = {"stem": (32, 3, 3, 3), "middle": (32, 32, 3, 3), "wide": (512, 32, 1, 1), "head": (10, 512)}
LAYERS = {"float": 9, "int8": len(SHAPES)}
KINDS = ("float", "int8")
WIDTHS = range(1, 9)


@dataclasses.dataclass(frozen=True)
class Files:
    """One network, packed and as it was; and how many of its weights are zeros."""

    packed: Path
    plain: Path
    zeros: float


def integers(bits: int, seed: int = 0) -> dict[str, np.ndarray]:
    """All codes of so many bits, the most negative one included; with one bit, signs."""
    generator = np.random.default_rng(seed)
    codes = {name: generator.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape) for name, shape in SHAPES.items()}
    return {name: (2 * code + 1 if bits == 1 else code).astype(np.int8) for name, code in codes.items()}


def quantized(weights: dict[str, np.ndarray], opset: int = 17) -> ModelProto:
    """A network in QDQ form: stem, a residual block, a wide layer, and a linear one.

    Scales are powers of two, zero points of weights are zeros, biases small: all of it can be packed, too.
    """
    generator = np.random.default_rng(1)
    nodes: list[NodeProto] = []
    tensors: list[TensorProto] = []

    def constant(name: str, values: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(values, name))
        return name

    def add(kind: str, *reads: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, reads, [f"{kind}-{len(nodes)}"], **attributes))  # pyright: ignore[reportArgumentType]
        return nodes[-1].output[0]

    def stored(name: str, values: np.ndarray, scale: np.ndarray) -> str:
        zero = constant(f"{name}-zero", np.zeros(scale.shape, values.dtype))
        numbers = [constant(name, values), constant(f"{name}-scale", scale), zero]
        return add("DequantizeLinear", *numbers, **({"axis": 0} if scale.ndim else {}))

    def rounded(flow: str, scale: float) -> str:
        grid = [constant(f"{flow}-scale", np.float32(scale)), constant(f"{flow}-zero", np.uint8(0))]  # pyright: ignore[reportArgumentType]
        return add("DequantizeLinear", add("QuantizeLinear", flow, *grid), *grid)

    def layer(kind: str, name: str, flow: str, **attributes: object) -> str:
        weight, entering = weights[name], 2.0**-6
        scale = np.full(len(weight) if kind == "Conv" else (), 2.0**-8 / max(1, np.abs(weight.astype(int)).max()))
        scale = (2 ** np.round(np.log2(scale))).astype(np.float32)
        bias = generator.integers(-99, 99, len(weight)).astype(np.int32)
        reads = [stored(name, weight, scale), stored(f"{name}-bias", bias, entering * scale)]
        return add(kind, flow, *reads, **attributes)

    pixels = add("Cast", add("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    flow = rounded(add("Mul", pixels, constant("shrink", np.float32(1 / 64))), 2.0**-6)  # pyright: ignore[reportArgumentType]
    flow = rounded(add("Relu", layer("Conv", "stem", flow, pads=[1] * 4)), 2.0**-6)
    side = rounded(add("Relu", layer("Conv", "middle", flow, pads=[1] * 4)), 2.0**-6)
    flow = rounded(add("Add", flow, side), 2.0**-6)
    flow = rounded(add("Relu", layer("Conv", "wide", flow)), 2.0**-6)
    flow = rounded(add("Flatten", rounded(add("GlobalAveragePool", flow), 2.0**-6)), 2.0**-6)
    layer("Gemm", "head", flow, transB=1)
    nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def both(model: ModelProto, folder: Path) -> tuple[Path, Path]:
    packed, plain = folder / "packed.onnx", folder / "plain.onnx"
    onnx.save(model, plain)
    packing.pack(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, packed)
    return packed, plain


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Nine of ten weights are zeros."""
    folder = tmp_path_factory.mktemp("packed")
    torch.manual_seed(0)
    network = families.build(NETWORK, 3, SIZE).eval()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            layer.weight *= torch.rand_like(layer.weight) > 0.9
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing, "pack", lambda _: None)
        writing.write(Model(network, artifact.Card(NETWORK, FACTS)), folder / "float.onnx", 17, {})
    generator = np.random.default_rng(0)
    codes = {name: np.where(generator.random(w.shape) > 0.9, w, 0).astype(np.int8) for name, w in integers(8).items()}
    models = {
        "float": (onnx.load(folder / "float.onnx"), [layer.weight.detach().numpy() for layer in layers]),
        "int8": (quantized(codes), list(codes.values())),
    }
    found: dict[str, Files] = {}
    for name, (model, weights) in models.items():
        (folder / name).mkdir()
        zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.size for weight in weights)
        found[name] = Files(*both(model, folder / name), zeros)
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
    assert running.kernels(files[kind].packed)["integer_kernels"] == (LAYERS[kind] if kind == "int8" else 0)


def optimised(path: Path, folder: Path) -> onnx.GraphProto:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_of_a_packed_file(files: dict[str, Files], kind: str) -> None:
    """Only its bytes are others."""
    packed, plain = files[kind].packed, files[kind].plain
    assert packed.stat().st_size < 0.6 * plain.stat().st_size
    assert running.tensor_bytes(packed) == running.tensor_bytes(plain)
    assert running.zeros(packed) == running.zeros(plain) == pytest.approx(files[kind].zeros)
    assert files[kind].zeros > 0.89
    assert (packing.packed(packed), packing.packed(plain)) == (LAYERS[kind], 0)


def test_zeros_make_no_integers(settings: params.Params, files: dict[str, Files]) -> None:
    """A float file with few numbers left is smaller than many an int8 file, and a packed int8 file is no finer one."""
    found = {kind: running.tensor_bytes(files[kind].packed) for kind in KINDS}
    one, other = ({"accuracy": 0.9, "tensor_bytes": size} for size in (found["float"], found["int8"]))
    kernels = {"integer_kernels": 4, "float_kernels": 0}
    limit = settings.export.model_copy(update={"max_int8_size": 0.35})
    gate.integer("quantized", other | kernels, one, 0, limit)
    with pytest.raises(Refusal, match="bytes unpacked, 100% of"):
        gate.integer("quantized", one | kernels, one, 0, limit)


@pytest.mark.parametrize("bits", WIDTHS)
def test_an_integer_network_of_any_width_stays_what_it_is(bits: int, tmp_path: Path) -> None:
    """Kernels, every step, every constant and every answer; and the file takes what its codes take."""
    packed, plain = both(quantized(integers(bits), opset=17 + bits % 4), tmp_path)
    graphs = [optimised(path, tmp_path) for path in (packed, plain)]
    assert len({tuple(sorted(node.op_type for node in graph.node)) for graph in graphs}) == 1
    numbers = [Counter(numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer) for graph in graphs]
    assert numbers[0] == numbers[1]
    assert running.kernels(packed) == running.kernels(plain)
    assert running.kernels(packed)["integer_kernels"] == len(SHAPES)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(running.logits(packed, images), running.logits(plain, images))
    assert running.logits(packed, images).std() > 0
    widths = packing.widths(packed)
    assert {widths.get(name, 8) for name in ("middle", "wide", "head")} == {bits}


def test_scales_zero_points_and_biases_are_packed_and_the_kernels_stay(tmp_path: Path) -> None:
    """Vectors are packed for their bytes, and are no weights."""
    packed, plain = both(quantized(integers(8)), tmp_path)
    assert packing.packed(packed) == 0
    assert packed.stat().st_size < plain.stat().st_size - 2000
    left = {tensor.name for tensor in onnx.load(packed).graph.initializer}
    assert left.isdisjoint({"wide-scale", "wide-zero", "wide-bias"})
    assert {"head", "head-scale", "stem-zero"} <= left
    assert running.kernels(packed) == running.kernels(plain)


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


def few(shape: tuple[int, ...], dtype: str, levels: int, seed: int = 0) -> np.ndarray:
    """Of so many numbers, whichever, all of them there."""
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(256)[:levels].astype(np.uint8)
    if dtype != "int8":
        numbers = numbers.astype(np.uint32) << 8 * (np.dtype(dtype).itemsize - 1)
    table = numbers.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    at = np.concatenate([np.arange(levels), generator.integers(0, levels, math.prod(shape))])[: math.prod(shape)]
    return table[generator.permutation(at)].reshape(shape)


def comes_back(weights: list[np.ndarray], opset: int) -> ModelProto:
    """Folded at loading, and where nothing is folded; only a zero's sign may be lost."""
    model = table(weights, opset)
    packing.pack(model)
    onnx.checker.check_model(model, full_check=True)
    rows = np.arange(min(len(weight) for weight in weights))
    for level in (GraphOptimizationLevel.ORT_ENABLE_ALL, GraphOptimizationLevel.ORT_DISABLE_ALL):
        for found, weight in zip(read(model, rows, level), weights, strict=True):
            assert found.dtype == weight.dtype
            np.testing.assert_array_equal(found, weight[rows])
    return model


@given(
    shape=some.lists(some.integers(1, 12), min_size=1, max_size=4),
    dtype=some.sampled_from(["float32", "int8", "float16"]),
    share=some.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
    opset=some.sampled_from([17, 18, 19, 20]),
    seed=some.integers(0, 99),
)
@example(shape=[31, 33], dtype="int8", share=0.9, opset=17, seed=0)
@example(shape=[7, 9, 3, 3], dtype="float32", share=1.0, opset=18, seed=0)
@limits(max_examples=30, deadline=None, database=None, derandomize=True)
def test_a_weight_comes_back_as_it_was(shape: list[int], dtype: str, share: float, opset: int, seed: int) -> None:
    model = comes_back([BALLAST, sparse(tuple(shape), dtype, share, seed)], opset)
    assert model.ByteSize() < table([sparse(tuple(shape), dtype, share, seed)], opset).ByteSize() + BALLAST.nbytes * 0.1


@pytest.mark.parametrize("dtype", ["float32", "int8", "float16"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_numbers_of_any_width_lie_in_planes_as_told(bits: int, dtype: str) -> None:
    """Read number by number: bit p of number j is in plane p, in byte j modulo their count, from the left."""
    weight = few((17, 11, 7 + bits), dtype, 2**bits if bits < 8 else 200, seed=bits)
    model = comes_back([weight, BALLAST], 17 + bits % 4)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if dtype == "int8" and bits == 8:
        np.testing.assert_array_equal(stored["weight-0"], weight)
        return
    planes, levels = stored["planes_0"], stored["levels_0"]
    assert planes.shape == (bits, -(-weight.size // 8))
    length = planes.shape[1]
    bit = [[plane[j % length] >> (7 - j // length) & 1 for plane in planes] for j in range(999)]
    codes = [sum(value << p for p, value in enumerate(found)) for found in bit]
    assert levels[codes].tobytes() == weight.reshape(-1)[:999].tobytes()


def test_three_bits_are_eight_codes_in_three_bytes() -> None:
    model = comes_back([few((800, 5), "int8", 8)], 17)
    (planes,) = (tensor for tensor in model.graph.initializer if tensor.name == "planes_0")
    assert len(planes.raw_data) == 3 * 500


@pytest.mark.parametrize("number", [0, 1, -128, -0.0, np.nan])
def test_one_number_alone_takes_a_bit(number: float, tmp_path: Path) -> None:
    weight = np.full((61, 53), number, np.int8 if isinstance(number, int) else np.float32)
    onnx.save(comes_back([weight], 17), tmp_path / "one.onnx")
    assert packing.widths(tmp_path / "one.onnx") == {"weight-0": 1}


NARROW = {
    "float16": (TensorProto.FLOAT16, 16, 17),
    "bfloat16": (TensorProto.BFLOAT16, 16, 17),
    "e4m3": (TensorProto.FLOAT8E4M3FN, 8, 19),
    "e5m2": (TensorProto.FLOAT8E5M2, 8, 19),
}


@pytest.mark.parametrize("kind", NARROW)
def test_floats_that_a_narrower_type_holds_lie_in_it(kind: str, tmp_path: Path) -> None:
    """Matrices and vectors, subnormal numbers among them; with zeros a mask, too. A row that is off, and all stay."""
    narrow, bits, opset = NARROW[kind]
    generator = np.random.default_rng(0)
    every = np.arange(2**bits).astype(f"u{bits // 8}").view(helper.tensor_dtype_to_np_dtype(narrow)).astype(np.float32)
    every = np.resize(generator.permutation(every[np.isfinite(every) & (every != 0)]), (300, 250))
    vector = every[:, 0].copy()
    holey = np.where(generator.random(every.shape) < 0.5, np.float32(0), every)
    off = every.copy()
    off[3, :] = generator.standard_normal(250)
    model = comes_back([every, vector, holey, off], opset)
    onnx.save(model, tmp_path / "narrow.onnx")
    widths = packing.widths(tmp_path / "narrow.onnx")
    assert widths == {"weight-0": bits, "weight-2": pytest.approx(1 + bits / 2, rel=0.02)}
    left = {tensor.name: tensor for tensor in model.graph.initializer}
    assert {left[name].data_type for name in ("narrow_0", "narrow_1", "narrow_2")} == {narrow}
    assert left["narrow_1"].dims == [300]
    assert len(left["narrow_1"].raw_data) == 300 * bits // 8
    assert "weight-3" in left


@pytest.mark.parametrize(("opset", "known"), [(18, False), (19, True)])
def test_no_file_has_types_that_its_opset_does_not_know(opset: int, known: bool) -> None:
    float8 = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    weight = np.random.default_rng(0).standard_normal((99, 99)).astype(float8).astype(np.float32)
    kinds = {tensor.data_type for tensor in comes_back([weight], opset).graph.initializer}
    assert (TensorProto.FLOAT8E4M3FN in kinds) == known


WEIGHTS = {
    "binary": few((150, 160), "int8", 2),
    "ternary": np.random.default_rng(0).choice([-1, 0, 1], (150, 160)).astype(np.int8),
    "ternary, many zeros": np.random.default_rng(0).choice([-1, 0, 1], (150, 160), p=[0.1, 0.8, 0.1]).astype(np.int8),
    "ternary, few zeros": np.random.default_rng(0).choice([-7, 0, 7], (150, 160), p=[0.4, 0.25, 0.35]).astype(np.int8),
    "steps of 64": np.random.default_rng(0).choice([-128, -64, 0, 64], (150, 160)).astype(np.int8),
    "fifteen levels": np.random.default_rng(0).integers(-7, 8, (150, 160)).astype(np.int8),
    "fifteen levels, many zeros": np.random.default_rng(0).integers(-7, 8, (150, 160)).astype(np.int8)
    * (np.random.default_rng(1).random((150, 160)) > 0.8).astype(np.int8),
    "eight bits": sparse((150, 160), "int8", 0.0),
    "eight bits, many zeros": sparse((150, 160), "int8", 0.9),
    "float": sparse((150, 160), "float32", 0.0),
    "float, many zeros": sparse((150, 160), "float32", 0.9),
    "float, few levels": few((150, 160), "float32", 100),
    "float, few levels, many zeros": few((150, 160), "float32", 9)
    * (np.random.default_rng(1).random((150, 160)) > 0.8).astype(np.float32),
    "float, one level, many zeros": (np.random.default_rng(1).random((150, 160)) > 0.8).astype(np.float32),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_smallest_form_is_taken(kind: str, tmp_path: Path) -> None:
    """By the formula: all numbers at one width, or a bit for each and the survivors at theirs."""
    weight = WEIGHTS[kind]
    onnx.save(comes_back([weight, BALLAST], 17), tmp_path / "file.onnx")

    def width(numbers: np.ndarray) -> int:
        distinct = len({number.tobytes() for number in numbers.reshape(-1)})
        return min(8 * weight.itemsize, max(1, math.ceil(math.log2(distinct))) if distinct <= 256 else 99)

    survivors = weight[weight != 0]
    formula = min(width(weight), 1 + survivors.size / weight.size * width(survivors))
    assert packing.widths(tmp_path / "file.onnx").get("weight-0", 8 * weight.itemsize) == pytest.approx(formula)


def test_what_is_no_number_is_not_cast() -> None:
    """Types have several of them, and not the same ones."""
    weight = np.random.default_rng(0).standard_normal((99, 99)).astype(np.float16).astype(np.float32)
    weight[5, 5] = np.nan
    assert comes_back([weight], 17) == table([weight], 17)


def test_what_unpacks_is_shared_and_counted_once(tmp_path: Path) -> None:
    """Masks alone would not pay for what unpacks them; beside codes, which have half of it already, they do."""
    masks, codes = sparse((40, 45), "int8", 0.5), few((99, 99), "int8", 4)
    hardly = np.random.default_rng(0).choice([-7, 0, 7], (150, 160), p=[0.45, 0.1, 0.45]).astype(np.int8)
    assert [function.name for function in comes_back([hardly], 17).functions] == ["bits", "trimmed", "codes"]
    assert comes_back([masks], 17).functions == table([masks], 17).functions
    assert [function.name for function in comes_back([codes], 17).functions] == ["bits", "trimmed", "codes"]
    model = comes_back([codes, masks], 17)
    onnx.save(model, tmp_path / "both.onnx")
    assert list(packing.widths(tmp_path / "both.onnx")) == ["weight-0", "weight-1"]
    assert [function.name for function in model.functions] == ["bits", "trimmed", "codes", "masked"]
    assert model.ByteSize() < comes_back([codes], 17).ByteSize() + table([masks], 17).ByteSize()


@pytest.mark.parametrize("bits", [1, 3, 7])
def test_the_ideal_file_has_the_bits_and_all_that_is_not_packed(bits: int, tmp_path: Path) -> None:
    """A table of another weight, and so many bits for each number of this one."""
    stays, weight = sparse((64, 64), "float32", 0.0), few((333, 111), "int8", 2**bits)
    model = comes_back([stays, weight], 17)
    onnx.save(model, tmp_path / "file.onnx")
    expected = emptied(model) + stays.nbytes + weight.size * bits / 8
    assert packing.ideal(tmp_path / "file.onnx") == pytest.approx(expected, abs=16)


def test_the_ideal_file_of_many_zeros(tmp_path: Path) -> None:
    weight = WEIGHTS["fifteen levels, many zeros"]
    model = comes_back([weight], 17)
    onnx.save(model, tmp_path / "file.onnx")
    expected = emptied(model) + weight.size / 8 + np.count_nonzero(weight) / 2
    assert packing.ideal(tmp_path / "file.onnx") == pytest.approx(expected, abs=16)


def emptied(model: onnx.ModelProto) -> int:
    """Bytes of the graph without any numbers."""
    return model.ByteSize() - sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def test_a_plain_file_is_its_own_ideal(files: dict[str, Files]) -> None:
    for kind in KINDS:
        assert packing.ideal(files[kind].plain) == files[kind].plain.stat().st_size


@pytest.mark.parametrize(
    "weight", [sparse((61, 53), "float32", 0.9), few((61, 53), "int8", 5)], ids=["masked", "codes"]
)
def test_another_runtime_reads_the_same(weight: np.ndarray) -> None:
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
        [np.arange(9999).astype(np.float32) / 3],
        [np.ones(16, np.float32)],
        [few((64, 64), "int8", 129)],
        [np.zeros((99, 101), np.int64)],
    ],
    ids=[
        "dense",
        "a bit costs more",
        "a bit costs more than a code",
        "what unpacks costs more",
        "a vector",
        "a short one",
        "eight bits",
        "what shapes are made of",
    ],
)
def test_what_would_not_become_smaller_stays_to_the_byte(weights: list[np.ndarray]) -> None:
    model = table(weights, 18)
    before = model.SerializeToString()
    packing.pack(model)
    assert model.SerializeToString() == before


def test_each_weight_is_judged_by_itself_and_what_unpacks_is_there_once() -> None:
    weights = [sparse((64, 64), "float32", share) for share in (0.9, 0.0, 0.5, 0.02)]
    weights.append(np.zeros((4, 4), np.float32))  # takes less than a node
    model = table(weights, 18)
    packing.pack(model)
    stay = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith("weight")}
    assert stay == {"weight-1", "weight-3", "weight-4"}
    assert [function.name for function in model.functions] == ["bits", "trimmed", "masked"]
