"""A teacher may learn wholly, in its last layer, or not at all; and it may be several networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import train_teacher
from stages.core import batches, evaluation, machine, params
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run

SMALL = params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1)


def teach(folder: Path, prepared: Path, settings: params.Params, **changes: object) -> dict[str, Any]:
    folder.mkdir()
    train_teacher.main(
        run=Run(folder / "run"),
        train_teacher=params.TrainTeacher.model_validate(
            settings.train_teacher.model_dump() | changes, from_attributes=True
        ),
        augment=settings.augment,
        compute=settings.compute,
        seed=0,
        train=prepared / "train",
        val=prepared / "val",
        teacher=folder / "teacher",
        metrics=folder / "metrics.json",
        history=folder / "curves.csv",
    )
    torch.use_deterministic_algorithms(mode=False)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def taught(prepared: Path, settings: params.Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught") / "first"
    teach(folder, prepared, settings)
    return folder


def of(taught: Path) -> dict[str, str]:
    return {"name": "file", "path": str(taught / "teacher")}


def test_nothing_learns_and_the_accuracy_is_that_of_the_file(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    found = teach(tmp_path / "again", prepared, settings, weights=of(taught), learn="nothing")
    first = json.loads((taught / "metrics.json").read_text())
    assert {name: found[name] for name in ("val_accuracy", "val_loss", "parameters", "macs")} == {
        name: first[name] for name in ("val_accuracy", "val_loss", "parameters", "macs")
    }
    assert found["epochs"] == found["best_epoch"] == 0
    card, before = artifact.read_card(tmp_path / "again/teacher"), artifact.read_card(taught / "teacher")
    assert card.origin["weights"] == "teacher"
    assert card.architecture == before.architecture
    again, original = (artifact.read_weights(folder / "teacher") for folder in (tmp_path / "again", taught))
    assert all(torch.equal(again[name], original[name]) for name in original)
    assert (tmp_path / "again/curves.csv").read_text().count("\n") == 1


def test_the_head_alone_learns(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    teach(tmp_path / "again", prepared, settings, weights=of(taught), learn="head")
    again, original = (artifact.read_weights(folder / "teacher") for folder in (tmp_path / "again", taught))
    assert {name for name in original if not torch.equal(again[name], original[name])} == {
        "head.4.weight",
        "head.4.bias",
    }


@pytest.mark.parametrize("learn", ["head", "nothing"])
def test_random_weights_are_not_kept(prepared: Path, settings: params.Params, tmp_path: Path, learn: str) -> None:
    with pytest.raises(ValueError, match=f"learn: {learn} keeps weights that are random"):
        teach(tmp_path / "x", prepared, settings, learn=learn)


def test_other_weights_are_refused_before_anything_is_learnt(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    wider = {"name": "residual_cnn", "blocks": 4, "hidden_layers": 1}
    with pytest.raises(Refusal, match="holds the weights of another network"):
        teach(tmp_path / "x", prepared, settings, network=wider, weights=of(taught))


def test_an_ensemble_is_the_mean_of_members_that_learnt_apart(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    members = [SMALL.model_dump(), {"name": "resnet9", "width": 0.125}]
    found = teach(tmp_path / "x", prepared, settings, network={"name": "ensemble", "members": members})
    assert set(found["members"]) == {"teacher-1", "teacher-2"}
    first = json.loads((taught / "metrics.json").read_text())
    assert found["members"]["teacher-1"]["val_accuracy"] == first["val_accuracy"]  # same seed, same network
    model = artifact.load(tmp_path / "x/teacher")
    here = machine.choose(settings.compute, 0)
    val = batches.on_device(storage.load(prepared / "val"), here)
    apart = [evaluation.logits(member, val) for member in model.network.get_submodule("members").children()]
    accuracies = [evaluation.accuracy(answers, val.labels) for answers in apart]
    assert accuracies == [found["members"][f"teacher-{n}"]["val_accuracy"] for n in (1, 2)]
    assert evaluation.accuracy((apart[0] + apart[1]) / 2, val.labels) == found["val_accuracy"]
    assert found["parameters"] == sum(weight.numel() for weight in model.network.parameters())
    torch.use_deterministic_algorithms(mode=False)
