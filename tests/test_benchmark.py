"""The stage's numbers, recounted from the files themselves."""

import csv
import json
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from stages import benchmark
from stages.core import answers, params
from stages.core.datasets import storage
from stages.core.networks import families
from stages.core.networks.artifact import Card, Model
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.shipping import running, writing
from tests.lessons import SMALL

ZEROS = 0.75


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """One as it came, and one with zeros in every product, which its file does not hold."""
    torch.manual_seed(0)
    found = {name: families.build(SMALL, 3, 8).eval() for name in ("teacher", "sparse")}
    for network in found.values():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)  # some begin as zeros, and what is merged with them would too
    for module in found["sparse"].modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data[torch.rand_like(module.weight) < ZEROS] = 0
    return found


@pytest.fixture(scope="module")
def shipped(networks: dict[str, nn.Module], prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    facts = storage.load(prepared / "test").facts
    for name, network in networks.items():
        parameters = sum(one.numel() for one in network.parameters())
        told = {"weights": "float32", "parameters": str(parameters), "macs": "12345"}
        writing.write(Model(network, Card(SMALL, facts)), folder / f"{name}.onnx", 18, told)
    return folder


def run(shipped: Path, prepared: Path, settings: params.Params, to: Path) -> dict[str, Any]:
    outputs = {"metrics": to / "benchmark.json", "rounds": to / "rounds.csv", "file_answers": to / "answers"}
    given = {"test": prepared / "test", "shipped": shipped}
    benchmark.main(run=Run(to / "run"), benchmark=settings.benchmark, **given, **outputs)
    return json.loads(outputs["metrics"].read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def found(shipped: Path, prepared: Path, settings: params.Params, place: Path) -> dict[str, Any]:
    return run(shipped, prepared, settings, place)


def test_sizes_are_those_of_the_files(found: dict[str, Any], shipped: Path, networks: dict[str, nn.Module]) -> None:
    for name, file in found["files"].items():
        content = (shipped / f"{name}.onnx").read_bytes()
        assert file["bytes"] == len(content)
        squeezed = zlib.compressobj(9, wbits=31)
        assert file["gzip_bytes"] == len(squeezed.compress(content) + squeezed.flush())
        assert file["parameters"] == sum(one.numel() for one in networks[name].parameters())
        products = [m.weight for m in networks[name].modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert file["nonzero"] == file["parameters"] - sum(int((weight == 0).sum()) for weight in products)
        assert file["macs"] == 12345
    assert found["files"]["sparse"]["nonzero"] < 0.5 * found["files"]["sparse"]["parameters"]
    assert found["files"]["sparse"]["bytes"] < found["files"]["teacher"]["bytes"]


def test_what_files_answered_is_kept_and_is_what_is_judged(
    found: dict[str, Any], shipped: Path, prepared: Path, place: Path
) -> None:
    split, kept = storage.load(prepared / "test"), answers.read(place / "answers")
    for name, file in found["files"].items():
        logits = torch.from_numpy(running.logits(shipped / f"{name}.onnx", split.images))
        assert np.allclose(kept.probabilities[name], logits.softmax(dim=1).numpy(), atol=1e-6)
        assert file["accuracy"] == (logits.argmax(dim=1).numpy() == split.labels).mean()
        assert file["accuracy_low"] < file["accuracy"] < file["accuracy_high"]
    assert found["pictures"] == len(split)


def test_rounds_tell_the_medians(found: dict[str, Any], place: Path) -> None:
    with (place / "rounds.csv").open() as stream:
        rounds = list(csv.DictReader(stream))
    for name, file in found["files"].items():
        for batch, at in (("1", file), ("2", file["batches"]["2"])):
            for way in ("one_thread", "all_threads"):
                key = {"file": name, "batch": batch, "threads": way}.items()
                told = [float(row["milliseconds"]) for row in rounds if key <= row.items()]
                assert len(told) == at[way]["rounds"] == 3
                assert at[way]["median"] == pytest.approx(np.median(told), abs=1e-6)
                assert at[way]["low"] <= at[way]["median"] <= at[way]["high"]
                assert at[way]["pictures_per_second"] == pytest.approx(1000 * int(batch) / np.median(told), rel=1e-3)
        assert file["load"]["n"] == 3
        assert 0 < file["memory"]["over_runtime_bytes"] < file["memory"]["peak_bytes"]
    assert found["files"]["teacher"]["one_thread"]["times_faster_than_teacher"] == 1


def test_what_is_not_there_is_said(found: dict[str, Any]) -> None:
    """Whatever the machine at hand has, no number stands for nothing."""
    joules = [file["joules"] for file in found["files"].values()]
    assert all(one is None for one in joules) == (found["energy"]["source"] is None)
    assert found["energy"]["why"].startswith("not measurable here: ") == (found["energy"]["source"] is None)
    assert ("why" in found["gpu"]) == all(file["gpu"] is None for file in found["files"].values())
    assert {"load_average", "load_average_at_end", "memory_bytes", "cores_usable"} <= set(found["machine"])


def test_answers_that_are_no_numbers_are_refused(
    shipped: Path, prepared: Path, settings: params.Params, tmp_path: Path
) -> None:
    file = onnx.load(shipped / "teacher.onnx")
    last = next(tensor for tensor in file.graph.initializer if tensor.name == "head.4.bias")
    last.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), last.name))
    onnx.save(file, tmp_path / "teacher.onnx")
    with pytest.raises(Refusal, match=r"teacher\.onnx answers what is no number to a test picture"):
        run(tmp_path, prepared, settings, tmp_path)
    (tmp_path / "teacher.onnx").unlink()
    with pytest.raises(Refusal, match=r"has no teacher\.onnx, beside which files are timed"):
        run(tmp_path, prepared, settings, tmp_path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"classes": '["bars", "checks", "blobs"]'}, "knows other classes"),
        ({"image_size": "9"}, "or pictures of another size"),
        ({"macs": None, "weights": None}, "does not tell its macs, weights"),
    ],
)
def test_files_of_another_data_set_are_refused(
    metadata: dict[str, str | None], said: str, shipped: Path, prepared: Path, settings: params.Params, tmp_path: Path
) -> None:
    """They would answer, and be wrong in numbers that look like any others."""
    file = onnx.load(shipped / "teacher.onnx")
    told = {one.key: one.value for one in file.metadata_props} | metadata
    onnx.helper.set_model_props(file, {key: value for key, value in told.items() if value is not None})
    onnx.save(file, tmp_path / "teacher.onnx")
    with pytest.raises(Refusal, match=rf"teacher\.onnx.* {said}"):
        run(tmp_path, prepared, settings, tmp_path)


def test_a_full_disk_is_said(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime has an error of its own for a file that it cannot write."""
    monkeypatch.setattr(running.tempfile, "TemporaryDirectory", lambda: nullcontext(tmp_path / "nowhere"))
    with pytest.raises(Refusal, match=r"teacher\.onnx cannot be written as ONNX Runtime runs it, in .*nowhere"):
        running.kernels(shipped / "teacher.onnx")
