"""The stage on a small world: its files are opened by other code than wrote them."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from stages import convert
from stages.core import batches, loading, machine, params
from stages.core.converting import asking, handing, table
from stages.core.datasets import storage
from stages.core.quantized import integers
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from tests.test_shipping import make_models, ship

pytestmark = pytest.mark.slow

ASKED = ("onnx_packed", "onnx_float16", "ort_float32", "ort_int8", "torch_float32", "litert_int8")
ALONE = """
import json, sys
import numpy as np
import torch

facts = {"lightvision.json": ""}
network = torch.export.load(sys.argv[1], extra_files=facts).module()
np.save(sys.argv[3], network(torch.from_numpy(np.load(sys.argv[2]))).detach().numpy())
assert not [name for name in sys.modules if name.split(".")[0] in ("stages", "timm", "torchvision")]
print(json.loads(facts["lightvision.json"])["classes"])
"""


@pytest.fixture(scope="module")
def world(settings: params.Params, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_models(tmp_path_factory.mktemp("convert"), settings, prepared)
    ship(settings, prepared, root, root)
    return root


def run(
    world: Path, prepared: Path, settings: params.Params, to: Path, shipped: Path | None = None, **changes: Any
) -> None:
    try:
        convert.main(
            run=Run(to / "run"),
            convert=settings.convert.model_copy(update={"targets": ASKED} | changes),
            compute=settings.compute,
            seed=0,
            val=prepared / "val",
            calibration=prepared / "calibration",
            pruned=world / "pruned",
            quantized=world / "quantized",
            shipped=shipped or world / "shipped",
            targets=to / "targets",
            metrics=to / "convert.json",
            table=to / "convert.csv",
        )
    finally:
        torch.use_deterministic_algorithms(mode=False)


@pytest.fixture(scope="module")
def found(world: Path, prepared: Path, settings: params.Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "prepare", lambda maker: _absent(maker) if maker == "litert" else None)
        run(world, prepared, settings, folder)
    return folder


def _absent(maker: str) -> None:
    raise Refusal(f"{maker} is not here")


def answers(folder: Path, prepared: Path, settings: params.Params) -> np.ndarray:
    pictures = batches.on_device(storage.load(prepared / "val"), machine.choose(settings.compute, 0))
    torch.use_deterministic_algorithms(mode=False)
    with torch.no_grad():
        return torch.cat([loading.load(folder).network(images) for images, _ in batches.in_order(pictures)]).numpy()


def test_rows_are_what_onnx_runtime_answers(found: Path, world: Path, prepared: Path, settings: params.Params) -> None:
    told = json.loads((found / "convert.json").read_text())
    split = storage.load(prepared / "val")
    assert told["pictures"] == len(split)
    assert list(told["targets"]) == list(ASKED)
    for name in ("onnx_packed", "onnx_float16", "ort_float32", "ort_int8"):
        row = told["targets"][name]
        session = onnxruntime.InferenceSession(found / "targets" / row["file"])
        logits = np.concatenate([np.asarray(session.run(None, {"images": image[None]})[0]) for image in split.images])
        expected = answers(world / row["of"], prepared, settings)
        assert row["agreement"] == (logits.argmax(axis=1) == expected.argmax(axis=1)).mean()
        assert row["accuracy"] == (logits.argmax(axis=1) == split.labels).mean()
        assert row["largest_difference"] == pytest.approx(np.abs(logits - expected).max(), abs=1e-5)
        facts = session.get_modelmeta().custom_metadata_map
        assert json.loads(facts["classes"]) == list(split.facts.classes)
        assert session.get_inputs()[0].type == "tensor(uint8)"
        assert session.get_outputs()[0].type == "tensor(float)"


def test_float16_is_what_the_file_holds(found: Path) -> None:
    model = onnx.load(found / "targets" / "onnx_float16.onnx")
    large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 3]
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    products = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {types[name] for name in products} == {onnx.TensorProto.FLOAT16}


def test_the_integers_lie_in_onnx_runtime_s_format_as_they_are(found: Path, world: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "read.onnx")
    options.add_session_config_entry("session.save_model_format", "ONNX")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(found / "targets" / "ort_int8.ort", options)
    tensors = map(onnx.numpy_helper.to_array, onnx.load(tmp_path / "read.onnx").graph.initializer)
    held = sorted(
        np.sort(tensor, axis=None).tobytes() for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim > 1
    )
    codes = integers.all_codes(loading.load(world / "quantized").network).values()
    assert held == sorted(np.sort(code.numpy().astype(np.int8), axis=None).tobytes() for code in codes)


def test_torch_alone_runs_the_program(found: Path, world: Path, prepared: Path, settings: params.Params) -> None:
    split = storage.load(prepared / "val")
    np.save(found / "some.npy", split.images[:5])
    command = [sys.executable, "-I", "-c", ALONE, "targets/torch_float32.pt2", "some.npy", "logits.npy"]
    told = subprocess.run(command, cwd=found, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(list(split.facts.classes))
    expected = answers(world / "pruned", prepared, settings)[:5]
    np.testing.assert_allclose(np.load(found / "logits.npy"), expected, rtol=1e-4, atol=1e-4)


def test_what_was_left_out_is_told_beside_the_others(found: Path) -> None:
    row = json.loads((found / "convert.json").read_text())["targets"]["litert_int8"]
    assert row == {"made": False, "why": row["why"]}
    assert "lightvision targets --build litert" in row["why"]
    with (found / "convert.csv").open(newline="") as stream:
        rows = {row["target"]: row for row in csv.DictReader(stream)}
    assert list(rows) == list(ASKED)
    assert rows["litert_int8"]["why"] == row["why"]
    assert not rows["litert_int8"]["bytes"]
    assert not rows["ort_int8"]["why"]


def test_every_file_has_a_card_that_answers(found: Path, prepared: Path, world: Path) -> None:
    names = {path.stem for path in (found / "targets").glob("*.json")}
    assert names == set(ASKED) - {"litert_int8"}
    for name in names:
        card = files.read_json(found / "targets" / f"{name}.json")
        for file, facts in card["files"].items():
            assert files.digest(found / "targets" / file) == facts["sha256"]
        assert card["model"] == files.digest(world / card["of"])
    file = found / "targets" / "ort_int8.ort"
    images = storage.load(prepared / "val").images[:2]
    expected = np.asarray(onnxruntime.InferenceSession(file).run(None, {"images": images})[0])
    np.testing.assert_allclose(asking.logits(file, images), expected, atol=1e-5)


def test_a_target_beyond_its_gate_stops_the_stage_by_name(
    world: Path, prepared: Path, settings: params.Params, tmp_path: Path
) -> None:
    """A file whose last layer says the opposite."""
    shutil.copytree(world / "shipped", tmp_path / "shipped")
    path = tmp_path / "shipped" / "pruned.onnx"
    model = onnx.load(path)
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    [weight] = [tensor for tensor in model.graph.initializer if tensor.name == last.input[1]]
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path)
    with pytest.raises(Refusal, match=r"^onnx_float32: it is not the network .* agrees on \d+\.\d+% of val .*80\.00%"):
        run(world, prepared, settings, tmp_path, shipped=path.parent, targets=("onnx_float32",))


def test_a_file_that_is_not_as_its_name_is_refused(
    world: Path, prepared: Path, settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32, made under the name of float16."""
    monkeypatch.setitem(table.TARGETS, "onnx_float16", replace(table.TARGETS["onnx_float16"], kind="float32"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match=r"^onnx_float16: it is not what its name says: it is float32, not float16"):
        run(world, prepared, settings, tmp_path, targets=("onnx_float16",), absent="fail")
    again = tmp_path / "again"
    run(world, prepared, settings, again, targets=("onnx_float16",))
    assert "it is float32, not float16" in files.read_json(again / "convert.json")["targets"]["onnx_float16"]["why"]
    assert not list((again / "targets").iterdir())


@pytest.mark.parametrize("absent", ["skip", "fail"])
def test_what_a_converter_cannot_make_hides_no_other_file(
    world: Path, prepared: Path, settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    def stubborn(_self: object, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images

    monkeypatch.setattr(handing.FromPixels, "forward", stubborn)
    changes: dict[str, Any] = {"targets": ("torch_float32", "ort_float32"), "absent": absent}
    if absent == "fail":
        with pytest.raises(Refusal, match=r"^torch_float32: torch\.export cannot follow ResidualCNN: "):
            run(world, prepared, settings, tmp_path, **changes)
        return
    run(world, prepared, settings, tmp_path, **changes)
    rows = files.read_json(tmp_path / "convert.json")["targets"]
    assert rows["torch_float32"] == {"made": False, "why": rows["torch_float32"]["why"]}
    assert rows["torch_float32"]["why"].startswith("torch.export cannot follow ResidualCNN: ")
    assert rows["ort_float32"]["made"]
    assert {path.name for path in (tmp_path / "targets").iterdir()} == {"ort_float32.ort", "ort_float32.json"}


def test_all_that_is_refused_is_told_at_once(
    world: Path, prepared: Path, settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx_float16", "ort_float32"):
        target = replace(table.TARGETS[name], rule=lambda _: "it is empty")
        monkeypatch.setitem(table.TARGETS, name, target)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match=r"^onnx_float16: .*it is empty.*; ort_float32: .*it is empty.*; nothing is conv"):
        run(
            world,
            prepared,
            settings,
            tmp_path,
            targets=("onnx_float16", "onnx_float32", "ort_float32"),
            absent="fail",
        )
