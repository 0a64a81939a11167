"""Public data sets in the layouts that they come in, and guessing what a path holds."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.core import params
from stages.core.datasets import sources
from stages.core.running.errors import Refusal
from tests.listings import PIXELS, csv_of, folders, given, picture, read, shade


def test_eurosat_s_folders(tmp_path: Path) -> None:
    folders(tmp_path / "EuroSAT" / "2750", sources.EUROSAT, ending="jpg")
    assert len(read("eurosat", tmp_path).items) == 20


def test_ucmerced(tmp_path: Path) -> None:
    folders(tmp_path / "UCMerced_LandUse" / "Images", sources.UCMERCED, ending="tif")
    (tmp_path / "UCMerced_LandUse" / "readme.txt").write_text("x")
    found = read("ucmerced", tmp_path)
    assert (len(found.items), len(found.classes)) == (42, 21)
    assert shade(found, 1) == (1, 0, 0)


@pytest.mark.parametrize("nested", [True, False])
def test_intel(tmp_path: Path, nested: bool) -> None:
    for name in ("seg_train", "seg_test"):
        folders(tmp_path / name / (name if nested else ""), sources.INTEL, ending="jpg")
    picture(tmp_path / "seg_pred" / ("seg_pred" if nested else "") / "10.jpg")
    found = read("intel", tmp_path)
    assert given(found) == {(split, name): 2 for split in ("train", "test") for name in sources.INTEL}
    assert found.unlabelled == (("seg_pred/seg_pred/10.jpg" if nested else "seg_pred/10.jpg"),)


def test_trashnet(tmp_path: Path) -> None:
    folders(tmp_path / "dataset-resized", sources.TRASHNET, ending="jpg")
    picture(tmp_path / "__MACOSX" / "dataset-resized" / "glass" / "._1.jpg")
    assert len(read("trashnet", tmp_path).items) == 12


def test_another_data_set_is_not_taken_for_a_known_one(tmp_path: Path) -> None:
    folders(tmp_path, [*sources.TRASHNET[:5], "compost"])
    with pytest.raises(Refusal, match="this is not trashnet: missing trash, unknown compost"):
        read("trashnet", tmp_path)


DEFECTS = tuple(sources.DEFECTS)


def test_neudet_s_validation_is_test(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        folders(tmp_path / "NEU-DET" / split / "images", DEFECTS, ending="jpg")
        (tmp_path / "NEU-DET" / split / "annotations").mkdir()
        (tmp_path / "NEU-DET" / split / "annotations" / "crazing_1.xml").write_text("<a/>")
    assert given(read("neudet", tmp_path)) == {(split, name): 2 for split in ("train", "test") for name in DEFECTS}


def test_neudet_s_classes_may_be_spelled_otherwise_in_each_split(tmp_path: Path) -> None:
    folders(tmp_path / "train", DEFECTS)
    others = {"pitted_surface": "pitted", "rolled-in_scale": "Rolled_in-scale"}
    folders(tmp_path / "validation", [others.get(name, name) for name in DEFECTS])
    found = read("neudet", tmp_path)
    assert found.classes == DEFECTS
    assert given(found) == {(split, name): 2 for split in ("train", "test") for name in DEFECTS}


@pytest.mark.parametrize("names", [("Cr", "In", "Pa", "PS", "RS", "Sc"), DEFECTS])
def test_neudet_s_files_may_name_their_class(tmp_path: Path, names: Sequence[str]) -> None:
    for name in names:
        picture(tmp_path / "images" / f"{name}_7.bmp")
    assert given(read("neudet", tmp_path)) == {("", name): 1 for name in DEFECTS}


def test_neudet_s_class_folders(tmp_path: Path) -> None:
    folders(tmp_path, DEFECTS)
    assert read("neudet", tmp_path).classes == DEFECTS


def test_the_digits_are_the_ones_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    found = read("digits", None)
    grey = np.asarray(found.items[7].open().image)[..., 0]
    assert len(found.items) == 1797
    assert np.abs(grey / 255 * 16 - load_digits().images[7]).max() < 0.05  # pyright: ignore[reportAttributeAccessIssue]


def test_a_guess_is_what_a_person_would_say(tmp_path: Path) -> None:
    folders(tmp_path / "folder", ["a", "b"])
    table = csv_of(tmp_path / "table", "path,label\none.png,a\ntwo.png,b\n", "train.csv")
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.arange(4))
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "table"))
    for path, name in (
        (tmp_path / "folder", "folder"),
        (table, "csv"),
        (table.parent, "csv"),
        (tmp_path / "a.npz", "npz"),
        (packed, "csv"),
    ):
        assert sources.guess(path, tmp_path / "home") == params.source(name, str(path)), path


@pytest.mark.slow
def test_ten_thousand_classes_are_listed(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}").mkdir()
        (tmp_path / f"{number:05}" / "0.png").touch()
    found = read("folder", tmp_path)
    assert len(found.classes) == len(found.items) == 10_000
