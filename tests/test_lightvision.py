"""The command `lightvision`, as a person types it."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from lightvision import __main__ as command
from stages.core.datasets import downloads
from stages.core.networks.families import FAMILIES
from stages.core.running.sources import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no project: the command must work there too, by the project's own parameters."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def lightvision(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> object:
    monkeypatch.setattr(sys, "argv", ["lightvision", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


def test_a_clean_folder_passes(
    pictures: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lightvision(monkeypatch, "data", "check", pictures) == 0
    told = capsys.readouterr().out
    assert "120 pictures of 3 classes" in told
    assert "prepare would not stop" in told
    assert not list(elsewhere.iterdir())


@pytest.fixture
def planted(pictures: Path, tmp_path: Path) -> Path:
    root = tmp_path / "planted"
    shutil.copytree(pictures, root)
    (root / "bars" / "empty.jpg").write_bytes(b"")
    shutil.copy(root / "bars" / "01.png", root / "blobs" / "stolen.png")
    (root / "rare").mkdir()
    shutil.copy(root / "bars" / "02.png", root / "rare" / "only.png")
    return root


def test_what_would_stop_prepare_is_told_and_is_the_status(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lightvision(monkeypatch, "data", "check", planted) == 1
    told = capsys.readouterr().out
    assert "bars/empty.jpg (bars): it is empty" in told
    assert "bars/01.png (bars, excluded) = blobs/stolen.png (blobs, excluded)" in told
    stops = [line for line in told.splitlines() if line.startswith("prepare would stop")]
    assert len(stops) == 2
    assert "1 pictures cannot be read (prepare.policy.broken)" in stops[0]
    assert "1 classes have too few pictures, among them rare (prepare.policy.small_classes)" in stops[1]


def test_the_policy_is_that_of_the_folder_one_works_in(
    planted: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "params.yaml").read_text()
    for before, after in (
        ("broken: stop ", "broken: skip "),
        ("conflicts: exclude", "conflicts: stop"),
        ("small_classes: stop", "small_classes: exclude"),
    ):
        assert before in text
        text = text.replace(before, after)
    (elsewhere / "params.yaml").write_text(text)
    assert lightvision(monkeypatch, "data", "check", planted) == 1
    [stop] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("prepare would stop")]
    assert "bear several labels (prepare.policy.conflicts)" in stop


def test_everything_broken_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "0.png").write_bytes(b"x")
    assert lightvision(monkeypatch, "data", "check", tmp_path / "broken") == 1
    assert "0 of 2 classes can be learnt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data", "check", "/nowhere"), "lightvision: /nowhere is not there"),
        (
            ("data", "fetch", "trashnet"),
            "cannot be fetched (ConnectionError); fetch a.zip (md5:0) elsewhere and put it at",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = downloads.Download("http://127.0.0.1:9/a.zip", "a.zip", "md5:0")
    monkeypatch.setattr(downloads, "DOWNLOADS", {"trashnet": unreachable})
    code = lightvision(monkeypatch, *words)
    assert isinstance(code, str)
    assert message in code
    assert "\n" not in code


@pytest.mark.parametrize("words", [(), ("data",), ("data", "chek", "."), ("data", "check"), ("study", "x")])
def test_a_wrong_command_line_is_status_2(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert lightvision(monkeypatch, *words) == 2


@pytest.mark.slow
def test_the_loader_is_measured(pictures: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--image-size", "16", "--batch-size", "16", "--workers", "1", "--rounds", "3", "--json", "found.json")
    assert lightvision(monkeypatch, "bench", "data", pictures, *options) == 0
    found = json.loads((elsewhere / "found.json").read_text())
    assert found["pictures"] == 120
    assert len(found["ours_rounds"]) == len(found["torchvision_rounds"]) == 3
    low, high = min(found["ours_rounds"]), max(found["ours_rounds"])
    assert 0 < low <= found["ours_pictures_per_second"] <= high
    assert found["times_faster_low"] <= found["times_faster"] <= found["times_faster_high"]


@pytest.mark.slow
def test_every_family_is_listed_with_its_size(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lightvision(monkeypatch, "models", "--image-size", "16", "--classes", "6", "--json", "found.json") == 0
    rows = json.loads((elsewhere / "found.json").read_text())["networks"]
    sizes = {row["network"]: row["parameters"] for row in rows}
    assert sizes["{name: residual_cnn, blocks: 8, hidden_layers: 1}"] == 1_648_470
    assert all(row["parameters"] and row["macs"] for row in rows)
    families = {name.split(",")[0].removeprefix("{name: ") for name in sizes}
    assert families == set(FAMILIES) - {"timm", "torchvision", "ensemble"}


def test_networks_of_timm_are_listed_by_pattern(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes no such picture says so, and the others are still listed."""
    options = ("--timm", "conv*xt_atto", "--image-size", "16", "--json", "found.json")
    assert lightvision(monkeypatch, "models", *options) == 0
    [row] = [
        row
        for row in json.loads((elsewhere / "found.json").read_text())["networks"]
        if "convnext_atto" in row["network"]
    ]
    assert row["parameters"] is None
    assert row["told"].startswith("not for 16 px")
    assert "no network of timm is called 'nothing'" in str(lightvision(monkeypatch, "models", "--timm", "nothing"))


def test_networks_of_torchvision_are_listed_by_pattern(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RegNets reckon with tensors while they are built, which have no numbers on the meta device."""
    options = ("--torchvision", "regnet_*_400mf", "--image-size", "32", "--json", "found.json")
    assert lightvision(monkeypatch, "models", *options) == 0
    rows = json.loads((elsewhere / "found.json").read_text())["networks"]
    names = ["regnet_x_400mf", "regnet_y_400mf"]
    assert [row["network"] for row in rows] == [
        f"{{name: torchvision, model: {name}, options: {{}}}}" for name in names
    ]
    assert all(row["parameters"] and row["macs"] for row in rows)
    wrong = str(lightvision(monkeypatch, "models", "--torchvision", "nothing"))
    assert "no classifier of torchvision is called 'nothing'" in wrong


@pytest.mark.slow
def test_training_is_measured(pictures: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--image-size", "16", "--batch-size", "16", "--workers", "1", "--rounds", "2", "--width", "0.125")
    assert lightvision(monkeypatch, "bench", "training", pictures, *options, "--json", "found.json") == 0
    found = json.loads((elsewhere / "found.json").read_text())
    assert (found["learnt"], found["held_out"], found["rounds"]) == (96, 24, 2)
    for name in ("ours", "plain_script", "timm"):
        assert len(found[f"{name}_rounds"]["pictures_per_second"]) == 2
        assert 0 <= found[f"{name}_accuracy"] <= 1
    for ratio in ("of_the_ceiling", "times_plain_script", "times_timm"):
        assert 0 < found[f"{ratio}_low"] <= found[ratio] <= found[f"{ratio}_high"]
