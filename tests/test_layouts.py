"""Folders as people arrange them become a listing, or a named reason."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.core.predicting.pictures import Unreadable
from stages.core.running.errors import Refusal
from tests.listings import folders, given, picture, read, shade


def test_class_folders(tmp_path: Path) -> None:
    folders(tmp_path, ["b", "a", "c/deep/er"])
    (tmp_path / "a" / "notes.txt").write_text("x")
    picture(tmp_path / ".hidden" / "0.png")
    picture(tmp_path / "__MACOSX" / "a" / "0.png")
    (tmp_path / "a" / "._a_0.png").write_bytes(b"macOS")
    found = read("folder", tmp_path)
    assert found.classes == ("a", "b", "c")
    assert [item.name for item in found.items][:2] == ["a/a_0.png", "a/a_1.png"]
    assert found.items[-1].name == "c/deep/er/er_1.png"
    assert found.other_files == 1
    assert shade(found, 1) == (1, 0, 0)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "val", "test"), {"train", "val", "test"}),
        (("training", "testing"), {"train", "test"}),
        (("Train", "Valid"), {"train", "val"}),
    ],
)
def test_split_folders_are_kept(tmp_path: Path, names: Sequence[str], splits: set[str]) -> None:
    for name in names:
        folders(tmp_path / name, ["a", "b"])
    found = read("folder", tmp_path)
    assert given(found) == {(split, label): 2 for split in splits for label in "ab"}


def test_a_class_may_be_missing_from_a_split(tmp_path: Path) -> None:
    folders(tmp_path / "train", ["a", "b", "c"])
    folders(tmp_path / "test", ["c", "a"])
    assert given(read("folder", tmp_path))["test", "c"] == 2


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    folders(tmp_path, ["train", "bus", "car"])
    assert read("folder", tmp_path).classes == ("bus", "car", "train")


def test_splits_without_classes_are_not_taken_for_classes(tmp_path: Path) -> None:
    folders(tmp_path, ["train", "test"])
    with pytest.raises(Refusal, match="test is named for a split and holds no class folders"):
        read("folder", tmp_path)


def test_a_wrapped_data_set_is_found(tmp_path: Path) -> None:
    folders(tmp_path / "wrapper" / "data", ["a", "b"])
    assert read("folder", tmp_path).items[0].name == "a/a_0.png"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ([], "holds 0 class folders"),
        (["a"], "holds 1 class folders"),
        (["a", "b", "empty/"], "class 'empty' is empty"),
    ],
)
def test_a_folder_that_cannot_be_learnt_from_is_refused(tmp_path: Path, make: list[str], message: str) -> None:
    folders(tmp_path, [name for name in make if not name.endswith("/")])
    for name in make:
        (tmp_path / name).mkdir(exist_ok=True)
    with pytest.raises(Refusal, match=message):
        read("folder", tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="/nowhere is not there"):
        read("folder", Path("/nowhere"))


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    folders(tmp_path / "elsewhere", ["cats"])
    folders(tmp_path / "data", ["dogs"])
    (tmp_path / "data" / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "data" / "dogs" / "again").symlink_to(tmp_path / "data" / "dogs")
    (tmp_path / "data" / "dogs" / "self.png").symlink_to(tmp_path / "data" / "dogs" / "self.png")
    (tmp_path / "data" / "dogs" / "gone.png").symlink_to(tmp_path / "nothing.png")
    found = read("folder", tmp_path / "data")
    assert given(found) == {("", "cats"): 2, ("", "dogs"): 4}
    broken = [item for item in found.items if item.name in ("dogs/self.png", "dogs/gone.png")]
    for item in broken:
        with pytest.raises(Unreadable, match="a link that leads nowhere"):
            item.open()
    assert len(broken) == 2


def test_what_only_bears_a_picture_s_name_never_hangs(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "folder.jpg").mkdir()
    reasons = {}
    for item in read("folder", tmp_path).items:
        if item.name in ("a/pipe.png", "a/folder.jpg"):
            with pytest.raises(Unreadable) as refusal:
                item.open()
            reasons[item.name] = str(refusal.value)
    assert reasons == {"a/pipe.png": "it is no file", "a/folder.jpg": "it is no file"}


def test_names_of_any_kind(tmp_path: Path) -> None:
    folders(tmp_path, ["cafe\u0301", "日本語 <b>&\n"])
    long = "x" * 250 + ".png"
    picture(tmp_path / "cafe\u0301" / long)
    picture(tmp_path / "cafe\u0301" / "0.png")
    os.rename(tmp_path / "cafe\u0301" / "0.png", os.fsencode(tmp_path / "cafe\u0301") + b"/not-\xff-text.png")
    found = read("folder", tmp_path)
    assert found.classes == ("caf\u00e9", "日本語 <b>&\n")
    names = [item.name for item in found.items]
    assert f"caf\u00e9/{long}" in names
    assert "caf\u00e9/not-\\udcff-text.png" in names
    assert [name.encode() for name in names]
    assert all(item.open() for item in found.items)


def test_one_name_spelled_in_two_ways_is_refused(tmp_path: Path) -> None:
    folders(tmp_path, ["cafe\u0301", "caf\u00e9", "tea"])
    with pytest.raises(Refusal, match="spelled in two ways"):
        read("folder", tmp_path)


def test_a_link_back_up_is_no_class_s_own(tmp_path: Path) -> None:
    folders(tmp_path / "real" / "data", ["a", "b"])
    (tmp_path / "linked").symlink_to(tmp_path / "real" / "data")
    (tmp_path / "real" / "data" / "a" / "up").symlink_to(tmp_path / "real")
    for root in (tmp_path / "real" / "data", tmp_path / "linked"):
        assert given(read("folder", root)) == {("", "a"): 2, ("", "b"): 2}


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path, ["a/closed", "a/open", "b"])
    scan = os.scandir

    def deny(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match="closed"):
        read("folder", tmp_path)


def test_what_lies_in_no_class_folder_is_listed(tmp_path: Path) -> None:
    folders(tmp_path / "train", ["a", "b"])
    for place in ("", "train", "pred", "pred/deeper"):
        picture(tmp_path / place / "loose.png")
        (tmp_path / place / "notes.txt").write_text("x")
    found = read("folder", tmp_path)
    assert found.unlabelled == ("loose.png", "pred/deeper/loose.png", "pred/loose.png", "train/loose.png")
    assert (len(found.items), found.other_files) == (4, 4)


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    for name in ("val", "test"):
        folders(tmp_path / name, ["a", "b"])
    with pytest.raises(Refusal, match="holds the splits test, val and no train"):
        read("folder", tmp_path)


def test_the_only_class_of_a_split_is_no_wrapper(tmp_path: Path) -> None:
    folders(tmp_path / "train" / "train", ["a/deep", "b"])
    folders(tmp_path / "test" / "images", ["a/deep"])
    assert given(read("folder", tmp_path)) == {("train", "a"): 2, ("train", "b"): 2, ("test", "a"): 2}


@pytest.mark.parametrize("name", ["my.birds", "my.birds.zip", "my.birds.tar.gz"])
def test_a_data_set_is_called_as_its_folder_or_archive(tmp_path: Path, name: str) -> None:
    folders(tmp_path / "my.birds", ["a", "b"])
    if name != "my.birds":
        kind = "zip" if name.endswith("zip") else "gztar"
        shutil.make_archive(str(tmp_path / "my.birds"), kind, tmp_path / "my.birds")
    assert read("folder", tmp_path / name, tmp_path / "home").name == "my.birds"


def test_an_archive_is_as_good_as_a_folder(tmp_path: Path) -> None:
    folders(tmp_path / "in" / "birds", ["a", "b"])
    for kind in ("zip", "gztar"):
        packed = shutil.make_archive(str(tmp_path / "birds"), kind, tmp_path / "in")
        assert [item.name for item in read("folder", Path(packed), tmp_path / "home").items] == [
            *("a/a_0.png", "a/a_1.png"),
            *("b/b_0.png", "b/b_1.png"),
        ]
