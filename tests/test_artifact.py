"""A model on the disk is data, all of it, and nothing else is taken for one."""

import dataclasses
import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stages.core import params
from stages.core.networks import artifact, families, widths
from stages.core.running import files
from stages.core.running.errors import Refusal
from tests.test_networks import FACTS, SETTINGS, SMALL

LARGER = dataclasses.replace(FACTS, image_size=32)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_artifact_comes_back_to_the_bit(tmp_path: Path, settings: params.Network) -> None:
    network = families.build(settings, 3, 16)
    network(torch.randn(4, 3, 16, 16))  # moves the statistics of BatchNorm
    artifact.save_float(tmp_path / "model", network, settings, FACTS)
    model = artifact.load(tmp_path / "model")
    picture = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.network(picture), network.eval()(picture))
    assert model.card.facts == FACTS
    assert not model.card.widths


def test_narrow_layers_come_back(tmp_path: Path) -> None:
    narrow = {
        "blocks.0.conv1": {"weight": (5, 16, 3, 3), "out_channels": (5,)},
        "blocks.0.bn1": dict.fromkeys(("weight", "bias", "running_mean", "running_var", "num_features"), (5,)),
        "blocks.0.conv2": {"weight": (16, 5, 3, 3), "in_channels": (5,)},
    }
    network = families.build(SMALL, 3, 16)
    widths.apply(network, narrow)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.9)
    artifact.save_float(tmp_path / "model", network, SMALL, FACTS)
    model = artifact.load(tmp_path / "model")
    assert model.card.widths == narrow
    picture = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.network(picture), network.eval()(picture))


def test_what_code_fills_for_itself_is_no_width(tmp_path: Path) -> None:
    """ConViT makes a table when it first sees pictures: not saved, so not to be found empty either."""
    settings = params.Timm(name="timm", model="convit_tiny", options={"depth": 1, "local_up_to_layer": 1})
    network = families.build(settings, 3, 32)
    picture = torch.randn(2, 3, 32, 32)
    before = widths.read(network)
    answer = network.eval()(picture)
    assert widths.read(network) == before
    artifact.save_float(tmp_path / "model", network, settings, LARGER)
    assert torch.equal(artifact.load(tmp_path / "model").network(picture), answer)


def one_more(_module: nn.Module, _given: typing.Any, answer: torch.Tensor) -> torch.Tensor:
    return answer + 1


def test_what_does_not_come_back_is_not_saved(tmp_path: Path) -> None:
    """A number in the code's own keeping, that neither widths nor weights tell."""
    settings = params.ResNet9(name="resnet9", width=0.125)
    network = families.build(settings, 3, 32).eval()
    network.register_forward_hook(one_more)
    reason = r"^ResNet9 answers otherwise once it is built anew from its settings, widths and weights: [^\n]+$"
    with pytest.raises(Refusal, match=reason):
        artifact.save_float(tmp_path / "model", network, settings, LARGER)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    artifact.save_float(tmp_path / "model", families.build(SMALL, 3, 16), SMALL, FACTS)
    return tmp_path / "model"


def rewrite(folder: Path, **changes: object) -> None:
    card = files.read_json(folder / "model.json")
    files.write_json(
        folder / "model.json", card | {"weights_sha256": files.digest(folder / "weights.safetensors")} | changes
    )


@pytest.mark.parametrize("change", ["missing", "surplus", "misshapen"])
def test_weights_of_another_architecture_are_refused(saved: Path, change: str) -> None:
    path = saved / "weights.safetensors"
    weights = load_file(path)
    if change == "missing":
        del weights["conv1.weight"]
    elif change == "surplus":
        weights["conv9.weight"] = torch.zeros(1)
    else:
        weights["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    save_file(weights, path)
    rewrite(saved)
    with pytest.raises(Refusal, match="weights are of another architecture"):
        artifact.load(saved)


def test_another_file_of_weights_is_refused(saved: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    weights["conv1.weight"] += 1
    save_file(weights, saved / "weights.safetensors")
    with pytest.raises(Refusal, match=r"is not the file that model\.json was written with"):
        artifact.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99, this version reads 3"),
        ({"architecture": {"name": "resnet1000"}}, "cannot be read as a model's card"),
        ({"widths": 3}, "cannot be read as a model's card"),
    ],
)
def test_a_card_that_says_something_else_is_refused(saved: Path, changes: dict[str, object], message: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(Refusal, match=message):
        artifact.load(saved)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(Refusal, match=f"has no {name}"):
        artifact.load(saved)


def test_nothing_is_pickled(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "weights.safetensors"]
