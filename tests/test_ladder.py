"""`lightvision bench widths`: the files of one network at several widths, and what is said of them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from lightvision import __main__ as command
from lightvision import widths
from lightvision.widths import Ladder
from stages.core import params
from stages.core.datasets import storage
from stages.core.networks import artifact, families
from stages.core.shipping import packing
from tests.lessons import SMALL

NEAREST, GPTQ = "{name: nearest}", "{name: gptq, damping: 0.01}"


@pytest.fixture(scope="module")
def place(settings: params.Params, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a params.yaml and an untrained network."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data").symlink_to(prepared)
    torch.manual_seed(0)
    network = families.build(SMALL, 3, 8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # some begin at zero, and what they follow with them
    for _ in range(20):
        network(torch.randn(16, 3, 8, 8))
    artifact.save_float(folder / "model", network, SMALL, storage.load(prepared / "train").facts)
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(settings.model_dump(mode="json"), stream)
    return folder


def bench(monkeypatch: pytest.MonkeyPatch, place: Path, *words: object) -> object:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["lightvision", "bench", "widths", "model", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    torch.use_deterministic_algorithms(mode=False)
    return ended.value.code


@pytest.fixture(scope="module")
def found(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    to = tmp_path_factory.mktemp("found") / "found.json"
    with pytest.MonkeyPatch.context() as patch:
        assert bench(patch, place, "--weights", 8, 2, "--rounding", NEAREST, GPTQ, "--json", to) == 0
    return json.loads(to.read_text())


@pytest.mark.slow
def test_each_width_with_each_rounding(found: dict[str, Any]) -> None:
    names = ["float32", "8 nearest", "8 gptq: damping 0.01", "2 nearest", "2 gptq: damping 0.01"]
    assert list(found["files"]) == names
    assert found["first"] == "8 nearest"
    methods = [found["files"][name]["method"] for name in names[1:]]
    assert [method["weights"] for method in methods] == [8, 8, 2, 2]
    assert [method["rounding"]["name"] for method in methods] == ["nearest", "gptq"] * 2


@pytest.mark.slow
def test_files_of_fewer_bits_are_smaller_and_run_as_integers(found: dict[str, Any]) -> None:
    files = found["files"]
    assert files["2 nearest"]["bytes"] < files["8 nearest"]["bytes"] < files["float32"]["bytes"]
    assert files["2 nearest"]["over_ideal"] > files["float32"]["over_ideal"] == 1  # by what unpacks
    for name, file in files.items():
        assert file["share_of_float32"] == file["bytes"] / files["float32"]["bytes"]
        products = file["integer_kernels"], file["float_kernels"]
        assert products == ((0, 8) if name == "float32" else (8, 0))
        assert file["accuracies"][0] == file["accuracy"] if name != "float32" else "accuracies" not in file


def test_draws_differ_and_are_as_many_pictures_as_prepare_takes(
    place: Path, prepared: Path, settings: params.Params
) -> None:
    train = storage.load(prepared / "train")
    ladder = Ladder(place / "model", train, {}, 3, settings)
    draws = [ladder.drawn(seed) for seed in range(3)]
    assert {len(draw) for draw in draws} == {settings.prepare.calibration_images}
    assert len({draw.images.tobytes() for draw in draws}) == 3
    pairs = {(image.tobytes(), label) for image, label in zip(train.images, train.labels, strict=True)}
    for draw in draws:
        assert {(image.tobytes(), label) for image, label in zip(draw.images, draw.labels, strict=True)} <= pairs
    few = Ladder(place / "model", draws[0], {}, 2, settings)
    assert np.array_equal(few.drawn(0).images, few.drawn(1).images)


def test_ratios_are_taken_round_by_round(settings: params.Params) -> None:
    """Float takes 6, the first 2 and the other 3 of whatever a round's unit is; the machine slows threefold."""
    units = np.array([1.0, 3.0, 1.0, 1.5])[:, None]
    times = {"float32": 6 * units, "8": 2 * units, "1": 3 * units}
    found = widths.timings(times, "8", settings.benchmark)
    assert {name: one["times_faster_than_float32"] for name, one in found.items()} == {"float32": 1, "8": 3, "1": 2}
    assert {name: one["times_as_long_as_first"] for name, one in found.items()} == {"float32": 3, "8": 1, "1": 1.5}
    assert found["1"]["times_as_long_as_first_low"] == found["1"]["times_as_long_as_first_high"] == 1.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "9"], "weights 9, rounding"),
        (["--rounding", "{name: gptq}"], "Field required"),
        (["--weights", "{choices: [8, 4], budget: {name: drop, at_most: 0.1}}"], "give numbers of bits"),
    ],
)
def test_what_is_no_width_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    assert message in str(bench(monkeypatch, place, *words))


@pytest.mark.slow
def test_other_files_stand_beside(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which another tool may have made."""
    other, to = tmp_path / "other.onnx", tmp_path / "found.json"
    widths.writing.write(artifact.load(place / "model"), other, 18, {})
    assert bench(monkeypatch, place, "--weights", 4, "--seeds", 2, "--beside", other, "--json", to) == 0
    files = json.loads(to.read_text())["files"]
    assert list(files) == ["float32", "4 nearest", "other"]
    assert files["other"]["bytes"] == other.stat().st_size
    assert files["other"]["over_ideal"] == other.stat().st_size / packing.ideal(other)
    assert (files["other"]["drop"], files["other"]["accuracy"]) == (0, files["float32"]["accuracy"])
    assert len(files["4 nearest"]["accuracies"]) == 2
