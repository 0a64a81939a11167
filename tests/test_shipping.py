"""The integer network holds integers, the shipped file answers as its network, and the gate holds back all else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stages import export, quantize
from stages.core import advice, evaluation, loading, machine, params
from stages.core.batches import on_device
from stages.core.datasets import storage
from stages.core.networks import artifact, families
from stages.core.quantized import integers
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.shipping import running, sessions, writing

SMALL = params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1)
LAYERS = 8  # the stem, two blocks of two convolutions, one shortcut, two linear layers
FOLDERS = ("teacher", "student", "pruned", "quantized")


@pytest.fixture(scope="module")
def models(settings: params.Params, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"), settings, prepared)


def make_models(root: Path, settings: params.Params, prepared: Path) -> Path:
    """An untrained network under three names, its statistics moved as by training, and its integer twin."""
    torch.manual_seed(0)
    network = families.build(SMALL, 3, 8)
    facts = storage.load(prepared / "train").facts
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for _ in range(20):
        network(torch.randn(16, 3, 8, 8))
    for name in FOLDERS[:3]:
        artifact.save_float(root / name, network, SMALL, facts)
    said = files.digest(root / "teacher"), files.digest(prepared / "train")
    advice.Record(settings.advise, settings.augment, *said, len(facts.classes)).write(root / "advice")
    make_integer(root, prepared, settings, settings.quantize, "quantized")
    return root


def make_integer(models: Path, prepared: Path, settings: params.Params, wanted: params.Quantize, name: str) -> None:
    quantize.main(
        run=Run(models / f"run-{name}"),
        quantize=wanted,
        advise=settings.advise,
        augment=settings.augment,
        compute=settings.compute,
        seed=0,
        **{split: prepared / split for split in ("train", "calibration", "val")},
        **{given: models / given for given in ("teacher", "advice", "pruned")},
        quantized=models / name,
        metrics=models / f"metrics-{name}.json",
        history=models / f"{name}.csv",
    )
    torch.use_deterministic_algorithms(mode=False)


def ship(settings: params.Params, prepared: Path, models: Path, to: Path, **limits: float) -> Path:
    export.main(
        run=Run(to / "run"),
        export=settings.export.model_copy(update=limits),
        compute=settings.compute,
        seed=0,
        val=prepared / "val",
        **{name: models / name for name in FOLDERS},
        shipped=to / "shipped",
        metrics=to / "export.json",
    )
    torch.use_deterministic_algorithms(mode=False)
    return to / "shipped"


@pytest.fixture(scope="module")
def shipped(settings: params.Params, prepared: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(settings, prepared, models, tmp_path_factory.mktemp("shipped"))


def test_the_integer_artifact_holds_integers(models: Path) -> None:
    weights = load_file(models / "quantized" / "weights.safetensors")
    codes = {name: value for name, value in weights.items() if name.endswith(".weight") and value.ndim > 1}
    assert len(codes) == LAYERS
    for name, value in codes.items():
        assert value.dtype == torch.int8, name
        assert value.abs().amax(dim=tuple(range(1, value.ndim))).min() == 127, "the range of each channel is used"
        assert weights[f"{name}_scale"].numel() == len(value), "a scale for each channel"


RECOVERIES: list[dict[str, Any]] = [
    {"name": "hinton", "temperature": 4.0, "alpha": 0.9},
    {"name": "fitnet", "layers": [{"student": "blocks.0.conv2", "teacher": "blocks.0"}], "weight": 1.0},
    {"name": "cross_entropy", "smoothing": 0.0},
]


@pytest.mark.slow
@pytest.mark.parametrize("recovery", RECOVERIES, ids=["hinton", "fitnet", "labels"])
def test_an_integer_network_learns_on(
    models: Path, settings: params.Params, prepared: Path, recovery: dict[str, Any]
) -> None:
    """From a teacher or from labels, roundings included: other codes, of as few levels, that come back to the bit."""
    wanted = settings.quantize.model_dump(mode="json") | {"recovery": recovery}
    wanted["training"] |= {"batch_size": 16, "epochs": 2, "optimizer": wanted["training"]["optimizer"] | {"rate": 1e-2}}
    name = f"taught-{recovery['name']}"
    make_integer(models, prepared, settings, params.Quantize.model_validate(wanted), name)
    found = json.loads((models / f"metrics-{name}.json").read_text())
    assert found["recovery"]["epochs"] == 2
    assert all(layer["levels"] <= 255 for layer in found["layers"].values())
    assert (models / f"{name}.csv").read_text().count("quantized") == 2
    before, after = (load_file(models / folder / "weights.safetensors") for folder in ("quantized", name))
    codes = [key for key in before if before[key].dtype == torch.int8]
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in codes)
    val = on_device(storage.load(prepared / "val"), machine.choose(settings.compute, 0))
    torch.use_deterministic_algorithms(mode=False)
    answers = evaluation.logits(loading.load(models / name).network, val)
    assert evaluation.accuracy(answers, val.labels) == found["val_accuracy"] == found["seeds"]["0"]["quantized"]
    heard = {"teacher"} if recovery["name"] != "cross_entropy" else set[str]()
    assert set(artifact.read_card(models / name).parents) == {"pruned"} | heard


def test_the_integer_network_comes_back_to_the_bit(models: Path, settings: params.Params, prepared: Path) -> None:
    pictures = on_device(storage.load(prepared / "val"), machine.choose(settings.compute, 0))
    first, again = (loading.load(models / "quantized").network for _ in range(2))
    assert torch.equal(evaluation.logits(first, pictures), evaluation.logits(again, pictures))


def test_a_float_loader_refuses_an_integer_model(models: Path) -> None:
    with pytest.raises(Refusal, match="is quantized"):
        artifact.load(models / "quantized")
    with pytest.raises(Refusal, match="holds no integer network"):
        integers.load(models / "pruned")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_file_answers_as_its_network(
    shipped: Path, models: Path, settings: params.Params, prepared: Path, name: str
) -> None:
    split = storage.load(prepared / "test")
    network = loading.load(models / name).network
    expected = evaluation.logits(network, on_device(split, machine.choose(settings.compute, 0))).numpy()
    torch.use_deterministic_algorithms(mode=False)
    found = running.logits(shipped / f"{name}.onnx", split.images)
    assert np.abs(found - expected).max() < (0.2 if name == "quantized" else 1e-4)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("name", ["pruned", "quantized"])
def test_the_file_takes_any_number_of_pictures(shipped: Path, prepared: Path, name: str, count: int) -> None:
    """With ONNX Runtime alone, as a person would use it."""
    images = storage.load(prepared / "test").images[:count]
    session = onnxruntime.InferenceSession(shipped / f"{name}.onnx")
    together = np.asarray(session.run(["logits"], {"images": images})[0])
    alone = np.concatenate([np.asarray(session.run(["logits"], {"images": image[None]})[0]) for image in images])
    assert together.shape == (count, 3)
    assert np.allclose(together, alone, atol=1e-4)


def test_the_file_says_how_to_use_it(shipped: Path) -> None:
    facts = running.facts(shipped / "quantized.onnx")
    assert json.loads(facts["classes"]) == ["bars", "blobs", "checks"]
    assert facts["image_size"] == "8"
    assert facts["weights"] == "int8"
    assert int(facts["parameters"]) == int(running.facts(shipped / "pruned.onnx")["parameters"]) > 0


def test_int8_means_integer_kernels_and_integers_in_the_file(shipped: Path) -> None:
    assert running.kernels(shipped / "quantized.onnx") == {
        "integer_kernels": LAYERS,
        "float_kernels": 0,
        "activation_kernels": 0,
    }
    assert running.kernels(shipped / "pruned.onnx") == {
        "integer_kernels": 0,
        "float_kernels": LAYERS,
        "activation_kernels": 0,
    }
    model = onnx.load(shipped / "quantized.onnx")
    large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 100]
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.INT8}


def test_the_metrics_tell_what_is_in_each_file(shipped: Path) -> None:
    metrics = json.loads((shipped.parent / "export.json").read_text())
    for name in FOLDERS:
        assert export.contents(shipped / f"{name}.onnx").items() <= metrics[name].items()


def test_a_weight_changed_in_the_file_closes_the_gate(
    settings: params.Params, prepared: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = writing.write

    def planted(model: artifact.Model, path: Path, opset: int, facts: dict[str, str]) -> None:
        honest(model, path, opset, facts)
        file = onnx.load(path)
        last = next(tensor for tensor in file.graph.initializer if tensor.name == "head.4.bias")
        changed = onnx.numpy_helper.to_array(last) + np.array([9, 0, 0], np.float32)
        last.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), last.name))
        onnx.save(file, path)

    monkeypatch.setattr(writing, "write", planted)
    with pytest.raises(Refusal, match=r"teacher\.onnx is not the network it was made from: it agrees on \d"):
        ship(settings, prepared, models, tmp_path)


@pytest.mark.slow
def test_an_integer_file_of_floats_is_refused(
    settings: params.Params, prepared: Path, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=r"it may not be called integer"):
        ship(settings, prepared, models, tmp_path, max_int8_size=0.1)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_no_model_is_named(shipped: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes((shipped / "pruned.onnx").read_bytes()[:3000] if content is None else content)
    with pytest.raises(Refusal, match=r"broken\.onnx does not load"):
        sessions.session(path, 1)
