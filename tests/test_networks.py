"""Networks are what their papers and libraries say, and come back from their artifacts to the bit."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from stages.core import counting, params
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families, widths
from stages.core.running import files
from stages.core.running.errors import Refusal

FACTS = Facts("small", ("a", "b", "c"), 16, (0.5,) * 3, (0.2,) * 3, "crop")
SMALL = params.ResidualCNN(name="residual_cnn", blocks=4, hidden_layers=1)
SETTINGS = [
    SMALL,
    params.ResidualCNN(name="residual_cnn", blocks=3, hidden_layers=0),
    params.ResNet(name="resnet18", stem="small", width=0.25),
    params.ResNet(name="resnet18", stem="imagenet", width=0.125),
]


@pytest.mark.parametrize(("blocks", "expected"), [(4, 98_294), (6, 408_854), (8, 1_648_470), (10, 6_601_686)])
def test_the_residual_cnn_has_its_published_size(blocks: int, expected: int) -> None:
    """98 k and 1,648,470 at six classes are printed by the project that introduced it."""
    network = families.build(params.ResidualCNN(name="residual_cnn", blocks=blocks, hidden_layers=1), 6)
    assert counting.parameters(network) == expected


def test_resnet18_is_that_of_torchvision() -> None:
    ours = families.build(params.ResNet(name="resnet18", stem="imagenet", width=1.0), 1000).eval()
    theirs = torchvision.models.resnet18().eval()
    assert counting.parameters(ours) == 11_689_512
    assert counting.multiply_accumulates(ours, 224) == 1_814_073_344
    ours.load_state_dict(theirs.state_dict(), strict=True)
    picture = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(picture), theirs(picture))


def test_multiply_accumulates_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 8 * 8, 7))
    assert counting.multiply_accumulates(network, 8) == 8 * 8 * 5 * 3 * 9 + 5 * 8 * 8 * 7


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("classes", "size"), [(2, 8), (21, 33)])
def test_every_network_takes_any_size_and_number_of_classes(settings: params.Network, classes: int, size: int) -> None:
    network = families.build(settings, classes).eval()
    assert network(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_artifact_comes_back_to_the_bit(tmp_path: Path, settings: params.Network) -> None:
    network = families.build(settings, 3)
    network(torch.randn(4, 3, 16, 16))  # moves the statistics of BatchNorm
    artifact.save_float(tmp_path / "model", network, settings, FACTS)
    model = artifact.load(tmp_path / "model")
    picture = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.network(picture), network.eval()(picture))
    assert model.card.facts == FACTS
    assert not model.card.widths


def test_narrow_layers_come_back(tmp_path: Path) -> None:
    narrow = {"blocks.0.conv1": (16, 5, 1), "blocks.0.bn1": (5,), "blocks.0.conv2": (5, 16, 1)}
    network = families.build(SMALL, 3)
    widths.apply(network, narrow)
    artifact.save_float(tmp_path / "model", network, SMALL, FACTS)
    model = artifact.load(tmp_path / "model")
    assert model.card.widths == narrow
    picture = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.network(picture), network.eval()(picture))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    artifact.save_float(tmp_path / "model", families.build(SMALL, 3), SMALL, FACTS)
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
        ({"schema": 99}, "schema 99, this version reads 1"),
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
