"""Who was made from whom: a page of models that do not belong together is refused."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from stages.core import params
from stages.core.reporting import findings, lineage
from stages.core.running import files
from stages.core.running.errors import Refusal
from tests.reporting.numbers import LESSON, PARENTS, distilled
from tests.reporting.reader import share
from tests.reporting.world import Build, World, meet_parents


def test_wrong_parent_stops_the_report(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    shutil.copy(tmp_path / "models/student/model.json", tmp_path / "models/pruned/model.json")
    with pytest.raises(Refusal, match=r"pruned was not made from .*student"):
        build(world)
    assert lineage.PARENTS == PARENTS


def test_every_parent_that_is_named_is_the_one_at_hand(tmp_path: Path, build: Build) -> None:
    """A student of its own control names that; a pruned network names the teacher of its recovery too."""
    world = World(tmp_path)
    path = world.root / "models/pruned/model.json"
    card = files.read_json(path)
    files.write_json(path, card | {"parents": card["parents"] | {"teacher": "another"}})
    with pytest.raises(Refusal, match=r"pruned was not made from .*teacher"):
        build(world)


@pytest.mark.parametrize("taught_by", ["itself", "a peer"])
def test_a_student_that_no_teacher_taught_has_none_among_its_parents(
    taught_by: str, tmp_path: Path, build: Build
) -> None:
    world = World(tmp_path)
    peer = LESSON | {"val_accuracy": 0.654, "control": LESSON | {"val_accuracy": 0.543}}
    told = distilled(LESSON, {"0": (0.876, 0.876)}, taught_by=taught_by, companions={"a friend": peer})
    world.write("distill", **told)
    with pytest.raises(Refusal, match=r"student was not made from .*teacher"):
        build(world)
    meet_parents(world, without="teacher")
    page = build(world)
    assert "The student also hears " + taught_by in page.text
    assert f"hinton, taught by {taught_by}" in page.text
    assert f"The student was taught by {taught_by}" in page.text
    assert page.row("a friend") == [share(0.654), "2 of 3", share(0.543)]
    world.write("distill", **told | {"taught_by": "teacher"})
    with pytest.raises(Refusal, match=r"student was not made from .*teacher"):
        build(world)


def test_a_teacher_that_goes_on_as_it_is_was_not_distilled(alone: World, build: Build) -> None:
    lesson = LESSON | {"best_epoch": 0, "epochs": 0}
    alone.write("distill", **distilled(lesson, {}, taught_by="nobody"))
    path = alone.metrics / "curves/distill.csv"
    pd.read_csv(path).head(0).to_csv(path, index=False)
    with pytest.raises(Refusal, match=r"student was not made from .*teacher"):
        build(alone)
    card = files.read_json(alone.root / "models/student/model.json") | {"weights_sha256": "teacher"}
    files.write_json(alone.root / "models/student/model.json", card)
    meet_parents(alone)
    page = build(alone)
    assert "No control The teacher itself goes on, as it is: nothing was distilled" in page.text
    assert "The student also hears" not in page.text
    assert "The student is the teacher, weight for weight" in page.text
    assert page.column("The student that goes on", "Best epoch") == ["not trained"]


@pytest.mark.parametrize(
    ("network", "origin", "expected"),
    [
        (
            params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1),
            "",
            "residual_cnn: blocks 2, hidden_layers 1",
        ),
        (
            params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 2}),
            "w.pth",
            "timm: model vit_tiny_patch16_224, depth 2; begun with w.pth",
        ),
        (
            params.Ensemble(
                name="ensemble",
                members=(params.ResNet9(name="resnet9", width=0.5), params.ViT(name="vit_tiny", patch=4)),
            ),
            "",
            "ensemble of resnet9: width 0.5 and vit_tiny: patch 4",
        ),
    ],
)
def test_any_network_is_said_as_a_person_would(
    world: World, network: params.Network, origin: str, expected: str
) -> None:
    card = files.read_json(world.root / "models/teacher/model.json")
    card |= {"architecture": network.model_dump(mode="json"), "origin": {"weights": origin}}
    assert lineage.describe(findings.Model.model_validate(card)) == expected
