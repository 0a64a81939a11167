"""Weights in few bits, computed in floating point, and linear layers whose inputs find their range at every call."""

import copy
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn

from stages import export, quantize
from stages.core import advice, batches, evaluation, loading, params, plain, zeros
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.networks.artifact import Card, Model
from stages.core.quantized.dynamic import DynamicLinear
from stages.core.quantized.stored import Scaled
from stages.core.quantizing import storing
from stages.core.quantizing.course import Made
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.shipping import packing, running, writing
from tests.lessons import SMALL

pytestmark = pytest.mark.slow

SIZE, OPSET = 16, 19
FACTS = Facts("any", ("a", "b", "c"), SIZE, (0.5,) * 3, (0.25,) * 3, "crop")
OPTIONS: dict[str, bool | int | float | str] = {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 4}
VIT = params.Timm(name="timm", model="vit_tiny_patch16_224", options=OPTIONS)
NETWORKS: dict[str, params.Network] = {"cnn": SMALL, "vit": VIT}
WIDE = params.ResNet9(name="resnet9", width=0.25)
BRIGHT = np.linspace(0.1, 1, 10).reshape(-1, 1, 1, 1)  # or else all noise looks the same to a network
IMAGES = (np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3)) * BRIGHT).astype(np.uint8)
SEEN = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25

HALF, BRAIN = params.Half(name="float16"), params.Half(name="bfloat16")
E4M3, E5M2 = (params.Float8(name="float8", format=name) for name in ("e4m3", "e5m2"))
CHANNEL, TENSOR = (params.DynamicInt8(name="dynamic_int8", scales=name) for name in ("channel", "tensor"))
METHODS: dict[str, tuple[Any, Callable[[Any, Any], Made]]] = {
    "float16": (HALF, storing.half),
    "bfloat16": (BRAIN, storing.half),
    "e4m3": (E4M3, storing.float8),
    "e5m2": (E5M2, storing.float8),
    "by channel": (CHANNEL, storing.dynamic),
    "by tensor": (TENSOR, storing.dynamic),
}
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "by channel": torch.int8,
    "by tensor": torch.int8,
}
NUMPY = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
NUMPY |= {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
KEYS = {
    *("val_accuracy_calibrated", "tried", "choices", "alone", "layers", "flows", "weight_bytes", "zeros", "recovery"),
    *("seeds", "against", "budget", "confidence", "quantized_layers", "float_layers", "quantized_share"),
}


@dataclass(frozen=True)
class Case:
    """`answers` are those of the network that was judged, before it was saved."""

    before: Model
    made: Made
    answers: Tensor
    folder: Path
    file: Path


def learnt(settings: params.Network, share: float = 0.1) -> Model:
    """BatchNorm has seen something, and no bias is zero; such a share of the weights is."""
    torch.manual_seed(0)
    network = families.build(settings, 3, SIZE).eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) + (0.5 if "bias" not in name else -0.5))
    for weight in zeros.weights(network).values():
        nn.init.kaiming_normal_(weight)
        weight.data *= torch.rand_like(weight) >= share
    return Model(network, Card(settings, FACTS))


def fewer(model: Model, method: str, seen: Callable[[nn.Module], None] = lambda _: None) -> Made:
    settings, make = METHODS[method]

    def judge(network: nn.Module) -> dict[str, float]:
        seen(network)
        return {"val_accuracy": 0.5}

    quantize = SimpleNamespace(method=settings, confidence=0.95)
    return make(SimpleNamespace(model=model, quantize=quantize, judge=judge), settings)


def answer(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network(SEEN)


def ship(model: Model, method: str, folder: Path) -> Case:
    answers: list[Tensor] = []
    made = fewer(model, method, lambda network: answers.append(answer(network)))
    made.save(folder / "model", made.card)
    writing.write(loading.load(folder / "model"), folder / "model.onnx", OPSET, {})
    return Case(model, made, answers[0], folder / "model", folder / "model.onnx")


@pytest.fixture(scope="module", params=NETWORKS)
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """One network, made each way; beside them its file in floating point, BatchNorm merged."""
    model, folder = learnt(NETWORKS[request.param]), tmp_path_factory.mktemp(request.param)
    merged = plain.merge(copy.deepcopy(model.network), SEEN)
    writing.write(Model(merged, model.card), folder / "float.onnx", OPSET, {})
    return {method: ship(model, method, folder / method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_loaded_is_what_was_judged(cases: dict[str, Case], method: str) -> None:
    case = cases[method]
    assert torch.equal(answer(loading.load(case.folder).network), case.answers)
    assert not torch.equal(case.answers, answer(case.before.network))


@pytest.mark.parametrize("method", METHODS)
def test_the_artifact_holds_the_numbers_in_that_many_bits(cases: dict[str, Case], method: str) -> None:
    case = cases[method]
    state = load_file(case.folder / "weights.safetensors")
    original = case.before.network
    products = {name: type(original.get_submodule(name)) for name in zeros.weights(original)}
    few = {name for name, kind in products.items() if METHODS[method][1] != storing.dynamic or kind is nn.Linear}
    for name in products:
        assert state[f"{name}.weight"].dtype == (DTYPES[method] if name in few else torch.float32), name
        half = METHODS[method][1] == storing.half
        assert state[f"{name}.bias"].dtype == (DTYPES[method] if half else torch.float32), name
        assert (f"{name}.weight_scale" in state) == (name in few and not half)
    assert few == set(case.made.facts["layers"]) == set(case.made.facts["quantized_layers"])
    assert set(products) - few == set(case.made.facts["float_layers"])


@pytest.mark.parametrize("method", METHODS)
def test_the_metrics_say_what_lies_in_the_artifact(cases: dict[str, Case], method: str) -> None:
    case = cases[method]
    state, facts = load_file(case.folder / "weights.safetensors"), case.made.facts
    assert set(facts) == KEYS
    weights = {name: state[f"{name}.weight"] for name in (*facts["quantized_layers"], *facts["float_layers"])}
    scales = [tensor for name, tensor in state.items() if name.endswith("scale")]
    assert facts["weight_bytes"] == sum(one.nbytes for one in weights.values()) + 4 * sum(map(torch.numel, scales))
    few = sum(weights[name].numel() for name in facts["quantized_layers"])
    assert facts["quantized_share"] == few / sum(map(torch.numel, weights.values()))
    for name, layer in facts["layers"].items():
        values = weights[name].float().numpy()
        assert layer["bits"] == {torch.float16: 16, torch.bfloat16: 16}.get(DTYPES[method], 8)
        assert layer["weights"] == values.size
        assert layer["levels"] == max(len(np.unique(channel)) for channel in values) <= 2 ** layer["bits"]
        assert layer["zeros"] == pytest.approx((values == 0).mean())


@pytest.mark.parametrize("method", METHODS)
def test_pruned_weights_stay_zero(cases: dict[str, Case], method: str) -> None:
    state = load_file(cases[method].folder / "weights.safetensors")
    for name, weight in zeros.weights(cases[method].before.network).items():
        assert not state[f"{name}.weight"].float()[weight == 0].any()
        assert (weight == 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_file_answers_as_the_network(cases: dict[str, Case], method: str) -> None:
    """Where inputs are rounded, the last bit of a sum can make another code of them, in few pictures."""
    answers = cases[method].answers.numpy()
    missed = np.abs(running.logits(cases[method].file, IMAGES) - answers).max(axis=1) / np.abs(answers).max()
    assert np.median(missed) < 1e-5
    assert missed.max() < (0.03 if METHODS[method][1] == storing.dynamic else 1e-5)
    assert answers.std(axis=0).min() > 0.02


@pytest.mark.parametrize("method", ["float16", "bfloat16", "e4m3", "e5m2"])
def test_onnx_runtime_executes_the_graph_of_the_float_file(cases: dict[str, Case], method: str) -> None:
    file, float_file = cases[method].file, cases[method].file.parent.parent / "float.onnx"
    assert executed(file) == executed(float_file)
    assert running.kernels(file) == running.kernels(float_file)


def executed(path: Path) -> Counter[str]:
    operators = running.operators(path)
    steps = [counts for side in (operators.integer, operators.floating) for counts in side.values()]
    return sum((Counter(counts) for counts in steps), Counter[str]())


@pytest.mark.parametrize("method", ["by channel", "by tensor"])
def test_linear_layers_run_as_integers_with_the_codes_of_the_artifact(cases: dict[str, Case], method: str) -> None:
    case = cases[method]
    state = load_file(case.folder / "weights.safetensors")
    layers = case.made.facts["quantized_layers"]
    kernels = running.operators(case.file).integer["products"]
    assert kernels == {"DynamicQuantizeMatMul": len(layers)}
    assert running.kernels(case.file)["float_kernels"] == len(case.made.facts["float_layers"]) > 0
    tensors = [numpy_helper.to_array(tensor) for tensor in running.folded(case.file).initializer]
    inside = Counter(tensor.tobytes() for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim == 2)
    assert inside == Counter(state[f"{name}.weight"].numpy().T.tobytes() for name in layers)
    assert {state[f"{name}.weight_scale"].numel() for name in layers} == (
        {1} if method == "by tensor" else {state[f"{name}.bias"].numel() for name in layers}
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights in a few large layers."""
    folder = tmp_path_factory.mktemp("wide")
    model = learnt(WIDE, share=0)
    writing.write(Model(copy.deepcopy(model.network), model.card), folder / "float.onnx", OPSET, {})
    for method in NUMPY:
        ship(model, method, folder / method)
    return folder


@pytest.mark.parametrize(
    ("method", "inside", "share", "words"),
    [
        ("float16", TensorProto.FLOAT16, 0.5, "float16, computed in float32"),
        ("bfloat16", TensorProto.BFLOAT16, 0.5, "bfloat16, computed in float32"),
        ("e4m3", TensorProto.FLOAT8E4M3FN, 0.25, "float8 e4m3, computed in float32"),
        ("e5m2", TensorProto.FLOAT8E5M2, 0.25, "float8 e5m2, computed in float32"),
    ],
)
def test_the_file_is_as_small_as_its_numbers(wide: Path, method: str, inside: int, share: float, words: str) -> None:
    """Float8 whose numbers are few takes even less: packing counts them."""
    file, float_file = wide / method / "model.onnx", wide / "float.onnx"
    assert file.stat().st_size < (share + 0.01) * float_file.stat().st_size
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(file).graph.initializer if len(tensor.dims) > 1}
    assert inside in weights.values()
    assert max(packing.widths(file).values()) <= 32 * share
    assert len(packing.widths(file)) == running.kernels(file)["float_kernels"]
    assert running.facts(file)["weights"] == words
    stored = wide / method / "model/weights.safetensors"
    assert stored.stat().st_size < (share + 0.01) * float_file.stat().st_size


@pytest.mark.parametrize("method", ["float16", "bfloat16"])
def test_batchnorm_is_merged_before_anything_is_rounded(cases: dict[str, Case], method: str) -> None:
    """conv1 by the formula; where there is no BatchNorm, the weight itself."""
    before, state = cases[method].before.network, load_file(cases[method].folder / "weights.safetensors")
    for name, (weight, bias) in expected(before.state_dict()).items():
        for part, numbers in (("weight", weight), ("bias", bias)):
            stored = state[f"{name}.{part}"].float().numpy()
            step = np.abs(stored) * (1e-3 if method == "float16" else 8e-3)
            assert np.array_equal(stored, stored.astype(NUMPY[method]).astype(np.float32))
            assert (np.abs(stored - numbers) <= step / 2 + 1e-7).all()
    assert not [name for name in state if "running_var" in name]


def expected(state: dict[str, Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    numbers = {name: tensor.double().numpy() for name, tensor in state.items()}
    if "conv1.weight" not in state:
        return {name: (numbers[f"{name}.weight"], numbers[f"{name}.bias"]) for name in ("patch_embed.proj", "head")}
    gain = numbers["bn1.weight"] / np.sqrt(numbers["bn1.running_var"] + 1e-5)
    shift = numbers["bn1.bias"] - numbers["bn1.running_mean"] * gain
    return {"conv1": (numbers["conv1.weight"] * gain[:, None, None, None], shift)}


@pytest.mark.parametrize("method", ["e4m3", "e5m2"])
def test_float8_rounds_as_numpy_does(method: str) -> None:
    """The largest weight of a channel becomes the largest number; a channel of zeros stays one."""
    generator = np.random.default_rng(0)
    weight = (generator.normal(size=(8, 64)) * 10.0 ** generator.integers(-5, 6, (8, 1))).astype(np.float32)
    weight[3] = 0
    codes, scale = Scaled(DTYPES[method]).right_inverse(torch.from_numpy(weight))
    most = {"e4m3": np.float32(448), "e5m2": np.float32(57344)}[method]
    steps = np.abs(weight).max(axis=1, keepdims=True) / most
    steps[3] = scale[3].item()
    assert np.array_equal(scale.numpy(), steps)
    assert np.array_equal(codes.numpy(), (weight / steps).astype(NUMPY[method]).astype(np.float32))
    assert sorted(np.abs(codes.numpy()).max(axis=1)) == [0, *[most] * 7]


INPUTS = {
    "both signs": lambda x: x,
    "positive": abs,
    "negative": lambda x: -abs(x),
    "far from zero": lambda x: x + 30,
    "nothing": lambda x: 0 * x,
}


@pytest.mark.parametrize("scales", ["channel", "tensor"])
@pytest.mark.parametrize("inputs", INPUTS)
def test_a_dynamic_layer_computes_what_the_operators_are_defined_to(scales: Any, inputs: str) -> None:
    generator = np.random.default_rng(0)
    layer = nn.Linear(7000, 5)  # the sums of so many products are no longer exact in float32
    layer.weight.data = layer.weight.data.abs() * torch.tensor([1, 2, 3, 4, 500.0])[:, None]
    x = INPUTS[inputs](generator.normal(size=(2, 3, 7000))).astype(np.float32)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    steps = np.abs(weight).max(axis=1) / np.float32(127)
    steps = np.full_like(steps, steps.max()) if scales == "tensor" else steps
    codes = np.rint(weight / steps[:, None]).astype(np.int64)
    found = DynamicLinear(layer, scales)
    with torch.no_grad():
        answers = found(torch.from_numpy(x)).numpy()
    assert np.array_equal(found.weight.numpy(), codes)
    rounded, step, zero = dynamic_quantize_linear(x)
    sums = ((rounded - zero) @ codes.T).astype(np.float32)
    assert np.array_equal(answers, sums * (step * steps) + bias)


def dynamic_quantize_linear(x: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
    """As onnx.ai has it, and as ONNX Runtime does where nothing is but zero."""
    low, high = min(np.float32(0), x.min()), max(np.float32(0), x.max())
    step = np.float32((high - low) / np.float32(255)) or np.float32(1)
    zero = int(np.rint(np.clip(0 - low / step, 0, 255)))
    return np.clip(np.rint(x / step).astype(np.int64) + zero, 0, 255), step, zero


def test_a_dynamic_file_equals_its_network_in_equal_batches(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not in others: ranges are those of all pictures together."""
    case = cases["by channel"]
    monkeypatch.setattr(batches, "PIXELS", 4 * SIZE**2)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (FACTS.mean, FACTS.std))
    labels = torch.zeros(len(IMAGES), dtype=torch.long)
    pictures = Pictures(torch.from_numpy(IMAGES), labels, mean, std, 3, torch.contiguous_format, streamed=False)
    parts = len(batches.parts_in_order(pictures))
    answers = evaluation.logits(loading.load(case.folder).network, pictures).numpy()
    apart = [np.median(np.abs(running.logits(case.file, IMAGES, n) - answers)) for n in (parts, None)]
    assert parts == math.ceil(len(IMAGES) / 4)
    assert apart[0] < 1e-6 < 1e-5 < apart[1]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_number_is_refused_by_name(method: str) -> None:
    model = learnt(VIT)
    model.network.get_submodule("blocks.1.mlp.fc1").weight.data[0, 0] = math.nan  # pyright: ignore[reportIndexIssue, reportArgumentType, reportCallIssue]
    with pytest.raises(Refusal, match=r"^blocks\.1\.mlp\.fc1\.weight holds what is no number"):
        fewer(model, method)


def test_what_float16_cannot_hold_is_refused_and_others_take_it(tmp_path: Path) -> None:
    model = learnt(VIT)
    model.network.get_submodule("blocks.1.mlp.fc1").weight.data[0, 0] = 7e4  # pyright: ignore[reportIndexIssue, reportArgumentType, reportCallIssue]
    with pytest.raises(Refusal, match=r"^blocks\.1\.mlp\.fc1\.weight reaches 7e\+04, and float16 ends at 6\.55e\+04"):
        fewer(model, "float16")
    for method in ("bfloat16", "e4m3"):
        made = fewer(model, method)
        made.save(tmp_path / method, made.card)
        weight = loading.load(tmp_path / method).network.get_submodule("blocks.1.mlp.fc1").weight
        assert weight[0, 0].item() == pytest.approx(7e4, rel=0.01)  # pyright: ignore[reportIndexIssue, reportCallIssue]


def test_a_network_without_linear_layers_has_nothing_to_find_ranges_for() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(Refusal, match="no linear layer"):
        fewer(Model(network, Card(SMALL, FACTS)), "by channel")


def test_weights_of_another_architecture_are_refused(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["e4m3"]
    state = load_file(case.folder / "weights.safetensors")
    artifact.save(tmp_path / "less", {name: one for name, one in state.items() if "scale" not in name}, case.made.card)
    with pytest.raises(Refusal, match="of another architecture"):
        loading.load(tmp_path / "less")


@pytest.mark.parametrize("method", ["e4m3", "by channel"])
def test_the_stages_make_it_and_prove_it(settings: params.Params, prepared: Path, tmp_path: Path, method: str) -> None:
    facts = storage.load(prepared / "train").facts
    network = learnt(SMALL).network
    for name in ("teacher", "student", "pruned"):
        artifact.save_float(tmp_path / name, network, SMALL, facts)
    said = files.digest(tmp_path / "teacher"), files.digest(prepared / "train")
    advice.Record(settings.advise, settings.augment, *said, len(facts.classes)).write(tmp_path / "advice")
    wanted = settings.quantize.model_copy(update={"method": METHODS[method][0], "recovery": None, "search": False})
    shared: dict[str, Any] = {"compute": settings.compute, "seed": 0, "val": prepared / "val"}
    quantize.main(
        run=Run(tmp_path / "run"),
        quantize=wanted,
        advise=settings.advise,
        augment=settings.augment,
        **{split: prepared / split for split in ("train", "calibration")},
        **{given: tmp_path / given for given in ("teacher", "advice", "pruned", "quantized")},
        metrics=tmp_path / "quantize.json",
        history=tmp_path / "quantize.csv",
        **shared,
    )
    export.main(
        run=Run(tmp_path / "run-2"),
        export=settings.export.model_copy(update={"opset": OPSET, "max_over_ideal": 2.0, "max_quantized_drop": 1.0}),
        **{given: tmp_path / given for given in ("teacher", "student", "pruned", "quantized")},
        shipped=tmp_path / "shipped",
        metrics=tmp_path / "export.json",
        **shared,
    )
    torch.use_deterministic_algorithms(mode=False)
    made, shipped = (json.loads((tmp_path / f"{stage}.json").read_text()) for stage in ("quantize", "export"))
    assert made["method"] == METHODS[method][0].name
    assert made["val_accuracy"] == made["val_accuracy_calibrated"] == shipped["quantized"]["accuracy"]
    assert shipped["quantized"]["largest_difference"] < 1e-4
    assert shipped["quantized"]["integer_kernels"] == (2 if method == "by channel" else 0)


def test_float8_asks_for_the_opset_that_knows_it(settings: params.Params) -> None:
    asked = settings.model_dump(mode="json")
    asked["quantize"] |= {"method": E4M3.model_dump(), "recovery": None}
    asked["export"]["opset"] = 18
    with pytest.raises(ValueError, match=r"export\.opset: ONNX has float8 from opset 19"):
        params.Params.model_validate(asked)
    asked["export"]["opset"] = 19
    assert params.Params.model_validate(asked).quantize.method == E4M3
