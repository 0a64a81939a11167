"""`lightvision bench targets`: files beside what ONNX Runtime's own quantizer makes of the same network."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from lightvision import bench, converted
from stages.core.datasets import storage
from stages.core.running.errors import Refusal
from tests import odd_networks


@pytest.fixture
def split(tmp_path: Path) -> Path:
    images = odd_networks.shown()
    labels = np.arange(len(images)) % len(odd_networks.FACTS.classes)
    roll = storage.Roll([str(n) for n in range(len(images))], [str(n) for n in range(len(images))], {})
    storage.write(tmp_path / "split", iter(images), labels, odd_networks.FACTS, roll)
    return tmp_path / "split"


def test_two_files_of_one_name_and_files_of_no_runtime_are_refused(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.xml", "a.txt"):
        (tmp_path / name).touch()
    with pytest.raises(Refusal, match="same name"):
        converted.named([tmp_path / "a.onnx", tmp_path / "a.xml"])
    for name in ("a.txt", "none.onnx"):
        with pytest.raises(Refusal, match="is no file of these"):
            converted.named([tmp_path / name])


@pytest.mark.slow
def test_files_are_told_beside_the_rival(tmp_path: Path, split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handed = odd_networks.hand_over(tmp_path / "handed")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    handed.onnx.rename(shipped / "pruned.onnx")
    handed.integers.rename(shipped / "quantized.onnx")
    said = tmp_path / "found.json"
    assert bench.targets(shipped, [], calibration=split, judging=split, rounds=4, json=said) == 0
    found = json.loads(said.read_text())
    files = found["files"]
    assert list(files) == ["pruned", "quantized", "onnx_runtime_static"]
    assert files["pruned"]["agreement"] == 1
    assert files["pruned"]["times_faster"] == [1, 1, 1]
    assert files["quantized"]["bytes"] == (shipped / "quantized.onnx").stat().st_size
    assert 0 < files["onnx_runtime_static"]["largest_difference"] < 1  # it is another network, and nearly the same
    assert all(row["milliseconds"]["rounds"] == found["rounds"] == 4 for row in files.values())
    assert "onnx_runtime_static" in capsys.readouterr().out


def test_the_rival_is_quantized_by_channels(tmp_path: Path) -> None:
    handed = odd_networks.hand_over(tmp_path / "handed")
    made = converted.by_onnx_runtime(handed.onnx, odd_networks.shown(20), tmp_path / "rival.onnx")
    graph = onnx.load(made).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    scales = [stored[node.input[1]].dims for node in graph.node if node.op_type == "DequantizeLinear"]
    assert [7] in [list(dims) for dims in scales]  # of the first layer's seven channels
