"""Every layout that people have becomes a listing: the right classes, labels and given splits, or a named reason."""

import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.core import params
from stages.core.datasets import arrays, sources
from stages.core.datasets.listing import Listing
from stages.core.datasets.pictures import Unreadable
from stages.core.running.errors import Refusal


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)


def folders(root: Path, names: Sequence[str], count: int = 2, ending: str = "png") -> Path:
    for name in names:
        for number in range(count):
            picture(root / name / f"{Path(name).name}_{number}.{ending}", number)
    return root


def read(name: str, path: Path | None, home: Path | None = None) -> Listing:
    return sources.listing(params.source(name, str(path) if path else None), home or Path("home"))


def given(found: Listing) -> Counter[tuple[str, str]]:
    return Counter((item.given, found.classes[item.label]) for item in found.items)


def shade(found: Listing, number: int) -> Any:
    return found.items[number].open().image.getpixel((0, 0))


# ------------------------------------------------------------------------------------------------- folders


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


# ----------------------------------------------------------------------------------------------------- CSV


def csv_of(root: Path, text: str, name: str = "labels.csv") -> Path:
    for shade, file in enumerate(("one.png", "two.png", "three.png", "sub/four.png")):
        picture(root / file, shade)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,label\none.png,b\ntwo.png,a\nsub/four.png,b\n", "labels.csv"),
        ("\ufeffFileName,Class\none.png,b\ntwo.png,a\nsub/four.png,b\n", "labels.csv"),
        ("label\timage\nb\tone.png\na\ttwo.png\nb\tsub/four.png\n", "labels.tsv"),
        ('"path","label"\r\n"one.png","b"\r\n"two.png","a"\r\n\r\n"sub/four.png","b"\r\n', "labels.csv"),
    ],
)
def test_a_csv_of_paths_and_labels(tmp_path: Path, text: str, name: str) -> None:
    found = read("csv", csv_of(tmp_path, text, name))
    assert found.classes == ("a", "b")
    assert [(item.name, item.label) for item in found.items] == [("one.png", 1), ("sub/four.png", 1), ("two.png", 0)]
    assert shade(found, 1) == (3, 0, 0)


def test_a_csv_may_bring_its_split_and_pictures_without_labels(tmp_path: Path) -> None:
    text = "path,label,split\none.png,b,train\ntwo.png,a,\nthree.png,,test\nsub/four.png,b,Validation\n"
    found = read("csv", csv_of(tmp_path, text))
    assert [(item.name, item.given) for item in found.items] == [
        ("one.png", "train"),
        ("sub/four.png", "val"),
        ("two.png", ""),
    ]
    assert found.unlabelled == ("three.png",)


def test_numbers_are_classes_in_their_own_order(tmp_path: Path) -> None:
    found = read("csv", csv_of(tmp_path, "path,label\none.png,10\ntwo.png,9\nthree.png,2\n"))
    assert found.classes == ("2", "9", "10")


def test_a_row_without_its_file_is_a_broken_picture(tmp_path: Path) -> None:
    found = read("csv", csv_of(tmp_path, "path,label\none.png,b\ngone.png,a\n"))
    [gone] = [item for item in found.items if item.name == "gone.png"]
    with pytest.raises(Unreadable, match="the file is not there"):
        gone.open()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,split\none.png,a,dev\n", r"labels.csv, line 2: 'dev' is no split; allowed: train, val, test"),
        ("path,label\none.png,a\ntwo,with comma.png,b\n", r"line 3: 3 cells under 2 columns"),
        ("path,label\n,a\n", "line 2: the path is empty"),
        ("name,size\none.png,a\n", "has the columns name, size; path and label are needed"),
        ("", "path and label are needed"),
        ("path,label\none.png,a\n", "names 1 classes"),
        ('path,label\n"one.png,a\n', "is no CSV"),
    ],
)
def test_a_csv_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        read("csv", csv_of(tmp_path, text))


def test_a_csv_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "")
    path.write_bytes("path,label\none.png,Bäume\n".encode("latin-1"))
    with pytest.raises(Refusal, match="is not UTF-8"):
        read("csv", path)


def packed(root: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(root / "packed"), "zip", folder))


def test_the_only_csv_of_an_archive_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path, csv_of(tmp_path / "in", "path,label\none.png,a\ntwo.png,b\n").parent)
    assert [item.open().image.size for item in read("csv", path, tmp_path / "home").items] == [(4, 4)] * 2
    assert sources.guess(path, tmp_path / "home").name == "csv"


@pytest.mark.parametrize("name", ["../../outside.png", "/outside.png", "sub/../../outside.png"])
def test_a_csv_in_an_archive_names_nothing_outside_it(tmp_path: Path, name: str) -> None:
    folder = csv_of(tmp_path / "in", f"path,label\none.png,a\n{name},b\n", "train.csv").parent
    with pytest.raises(Refusal, match=r"train.csv, line 3: .*outside.png' lies outside the archive"):
        read("csv", packed(tmp_path, folder), tmp_path / "home")
    assert len(read("csv", folder).items) == 2


def test_a_path_too_long_for_a_file_is_a_broken_picture(tmp_path: Path) -> None:
    found = read("csv", csv_of(tmp_path, f"path,label\none.png,a\n{'x' * 300}.png,b\n"))
    with pytest.raises(Unreadable, match="too long"):
        found.items[1].open()


def test_one_path_under_two_labels_is_kept_twice(tmp_path: Path) -> None:
    found = read("csv", csv_of(tmp_path, "path,label\none.png,b\none.png,a\n"))
    assert [(item.name, found.classes[item.label]) for item in found.items] == [("one.png", "a"), ("one.png", "b")]


def test_labels_of_one_number_have_an_order(tmp_path: Path) -> None:
    found = read("csv", csv_of(tmp_path, "path,label\none.png,1\ntwo.png,01\nthree.png,001\n"))
    assert found.classes == ("001", "01", "1")


def eurosat_tables(root: Path, label_map: Any = None, **rows: Sequence[str]) -> Path:
    folders(root, sources.EUROSAT)
    numbers = {name: number for number, name in enumerate(sources.EUROSAT)}
    (root / "label_map.json").write_text(json.dumps(label_map or numbers))
    for split, each in {"train": "0", "validation": "1", "test": "1"}.items():
        lines = [f"{n},{name}/{name}_{each}.png,{n},{name}" for n, name in enumerate(sources.EUROSAT)]
        text = "\n".join([",Filename,Label,ClassName", *lines, *rows.get(split, ())])
        (root / f"{split}.csv").write_text(text + "\n")
    return root


def test_eurosat_s_tables_keep_their_split(tmp_path: Path) -> None:
    found = read("eurosat", eurosat_tables(tmp_path))
    assert found.classes == sources.EUROSAT
    assert given(found) == {(split, name): 1 for split in ("train", "val", "test") for name in sources.EUROSAT}


def test_a_label_map_may_be_turned_round(tmp_path: Path) -> None:
    backwards = {str(9 - n): name for n, name in enumerate(sources.EUROSAT)}
    root = eurosat_tables(tmp_path, backwards)
    for path in root.glob("*.csv"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *(re_labelled(line) for line in lines[1:])]) + "\n")
    assert read("csv", root).classes == tuple(reversed(sources.EUROSAT))


def re_labelled(line: str) -> str:
    number, file, label, name = line.split(",")
    return f"{number},{file},{9 - int(label)},{name}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("9,River/River_0.png,42,", r"train.csv, line 12: label '42' is not in label_map.json; it has AnnualCrop"),
        ("9,River/River_0.png,0,River", r"train.csv, line 12: label '0' and class 'River' contradict"),
    ],
)
def test_a_label_against_the_map_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        read("eurosat", eurosat_tables(tmp_path, train=[row]))


# -------------------------------------------------------------------------------------------- public sets


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


# --------------------------------------------------------------------------------------------------- CIFAR

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (6, 4, 32, 32, 3), np.uint8)  # five batches of four pictures, and test
LABELS = np.arange(24).reshape(6, 4) % 10


def batch(images: np.ndarray, labels: list[Any]) -> bytes:
    return pickle.dumps({b"data": images, b"labels": labels})


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_python(root: Path, protocol: int = 2) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        batch = {b"data": planes(PIXELS[n]), b"labels": LABELS[n].tolist(), b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in sources.CIFAR10]}))
    return folder


def cifar_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = np.concatenate([LABELS[n].astype(np.uint8)[:, None], planes(PIXELS[n])], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(sources.CIFAR10) + "\n\n")
    return folder


def cifar_folders(root: Path) -> Path:
    for n in range(6):
        for m in range(4):
            path = root / "cifar" / ("test" if n == 5 else "train") / sources.CIFAR10[LABELS[n, m]] / f"{n}{m}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[n, m]).save(path)
    return root / "cifar"


def cifar_npz(root: Path) -> Path:
    learning = {"x_train": PIXELS[:5].reshape(-1, 32, 32, 3), "y_train": LABELS[:5].reshape(-1, 1)}
    np.savez_compressed(root / "cifar.npz", **learning, x_test=PIXELS[5], y_test=LABELS[5])  # pyright: ignore[reportArgumentType]
    return root / "cifar.npz"


@pytest.mark.parametrize("make", [cifar_python, cifar_binary, cifar_folders, cifar_npz])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_in_every_form_is_the_same(tmp_path: Path, make: Any, packed: bool) -> None:
    path = make(tmp_path)
    if packed and path.is_dir():
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "gztar", path.parent, path.name))
    found = read("cifar10", path, tmp_path / "home")
    assert found.classes == sources.CIFAR10
    told = {(item.open().image.tobytes(), item.label, item.given) for item in found.items}
    assert told == {
        (PIXELS[n, m].tobytes(), LABELS[n, m], "test" if n == 5 else "train") for n in range(6) for m in range(4)
    }


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    for name in ("train", "test"):
        batch = {b"data": planes(PIXELS[0]), b"fine_labels": [0, 99, 42, 7], b"coarse_labels": [0, 1, 2, 3]}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
        rows = [[coarse, fine] for coarse, fine in zip(range(4), (0, 99, 42, 7), strict=True)]
        (tmp_path / "bin").mkdir(exist_ok=True)
        content = np.concatenate([np.array(rows, np.uint8), planes(PIXELS[0])], axis=1)
        (tmp_path / "bin" / f"{name}.bin").write_bytes(content.tobytes())
    names = [f"class-{n}" for n in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in names]}))
    (tmp_path / "bin" / "fine_label_names.txt").write_text("\n".join(names))
    for folder in (tmp_path, tmp_path / "bin"):
        found = read("cifar100", folder)
        assert found.classes == tuple(names)
        assert [item.label for item in found.items] == [0, 99, 42, 7] * 2
        assert found.items[1].open().image.tobytes() == PIXELS[0, 1].tobytes()


def test_cifar100_may_lie_below_its_superclasses(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folders(tmp_path / split, [f"super-{n % 20:02}/class-{n:02}" for n in range(100)], count=1)
    found = read("cifar100", tmp_path)
    assert found.classes == tuple(f"class-{n:02}" for n in range(100))
    assert {found.classes[item.label] for item in found.items if "/class-42/" in item.name} == {"class-42"}


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/owned",)


def test_a_pickle_that_would_run_a_program_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar_python(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it ran"))
    with pytest.raises(Refusal, match=r"asks for posix\.system, which no array needs"):
        read("cifar10", folder)


@pytest.mark.parametrize(
    ("make", "name", "damage", "message"),
    [
        (cifar_binary, "data_batch_2.bin", lambda content: content[:-1], "is cut short"),
        (cifar_python, "data_batch_2", lambda content: content[:-50], "is no batch of CIFAR"),
        (cifar_binary, "data_batch_2.bin", lambda content: b"\x0a" + content[1:], "picture 0 has the label 10"),
        (cifar_binary, "data_batch_2.bin", lambda _: b"", "is cut short"),
        (cifar_python, "data_batch_2", lambda _: pickle.dumps({b"other": 1}), "is no batch of CIFAR"),
        (cifar_python, "data_batch_2", lambda _: pickle.dumps([1]), "is no batch of CIFAR"),
        (cifar_python, "data_batch_2", lambda _: batch(planes(PIXELS[0]) / 255, [0, 1, 2, 3]), "is no batch of CIFAR"),
        (cifar_python, "data_batch_2", lambda _: batch(planes(PIXELS[0]), [0, 1, 2]), "is no batch of CIFAR: 3 labels"),
        (cifar_python, "data_batch_2", lambda _: batch(planes(PIXELS[0]), list("abcd")), "is no batch of CIFAR"),
        (
            cifar_python,
            "data_batch_2",
            lambda _: batch(planes(PIXELS[0]), [0, 1, 2, -1]),
            "picture 3 has the label -1",
        ),
        (cifar_python, "batches.meta", lambda _: pickle.dumps({b"other": 1}), "does not name the classes"),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, make: Any, name: str, damage: Any, message: str) -> None:
    path = make(tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Refusal, match=rf"{name}:? {message}"):
        read("cifar10", path.parent)


@pytest.mark.parametrize(("name", "message"), [("data_batch_4", "data_batch_4"), ("test_batch", "its test batch")])
def test_a_missing_batch_is_named(tmp_path: Path, name: str, message: str) -> None:
    folder = cifar_python(tmp_path)
    (folder / name).unlink()
    with pytest.raises(Refusal, match=f"lacks {message}"):
        read("cifar10", folder)


# ----------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize(
    "content",
    [
        {"images": PIXELS[0], "labels": np.array([0, 1, 2, 1])},
        {"images": PIXELS[0].transpose(0, 3, 1, 2), "labels": np.array([[0], [1], [2], [1]])},
        {"train_images": PIXELS[0], "train_labels": np.array([0, 1, 2, 1], np.uint8)},
    ],
    ids=["plain", "channels first", "MedMNIST"],
)
def test_an_npz(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **content, class_names=np.array(["x", "y", "z"]))  # pyright: ignore[reportArgumentType]
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    assert found.classes == ("x", "y", "z")
    assert [item.label for item in found.items] == [0, 1, 2, 1]
    assert found.items[2].open().image.tobytes() == PIXELS[0, 2].tobytes()


def test_a_grey_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0, ..., 0], labels=np.array([0, 1, 2, 1]))
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    assert np.array_equal(np.asarray(found.items[3].open().image)[..., 2], PIXELS[0, 3, ..., 0])


def test_an_archive_may_hold_an_npz(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, make in (("cifar10", cifar_npz), ("npz", cifar_npz)):
        make(tmp_path / "in")
        path = packed(tmp_path, tmp_path / "in")
        assert len(read(name, path, tmp_path / "home").items) == 24
    assert sources.guess(path, tmp_path / "home").name == "npz"


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.array([7, 5, 7, 3_000_000_000]))
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    assert found.classes == ("5", "7", "3000000000")
    assert [item.label for item in found.items] == [1, 0, 1, 2]


def test_classes_may_be_named_in_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.arange(4) % 2, classes=np.array([b"x", b"y"]))
    assert read("npz", tmp_path / "a.npz", tmp_path / "home").classes == ("x", "y")


def test_items_can_be_sent_to_another_process(tmp_path: Path) -> None:
    folders(tmp_path / "folder", ["a", "b"])
    for name, path in (
        ("folder", tmp_path / "folder"),
        ("csv", csv_of(tmp_path / "csv", "path,label\none.png,b\ntwo.png,a\n")),
        ("npz", cifar_npz(tmp_path)),
        ("cifar10", cifar_binary(tmp_path)),
        ("cifar10", cifar_python(tmp_path)),
        ("digits", None),
    ):
        one = read(name, path, tmp_path / "home").items[1]
        sent = pickle.dumps(one)
        assert len(sent) < 1000
        assert pickle.loads(sent).open().image.tobytes() == one.open().image.tobytes()  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": PIXELS[0]}, "images without its labels"),
        ({"other": PIXELS[0]}, "holds other; images and labels"),
        ({"images": PIXELS[0], "labels": np.arange(3)}, "4 pictures and labels 3 labels"),
        ({"images": PIXELS[0] / 255, "labels": np.arange(4)}, "images is float64; pictures are uint8"),
        ({"images": PIXELS[0].reshape(4, -1), "labels": np.arange(4)}, r"shape \(4, 3072\)"),
        ({"images": PIXELS[0], "labels": np.arange(4) / 2}, "one whole number"),
        ({"images": PIXELS[0], "labels": np.arange(4) - 1}, "one whole number"),
        ({"images": PIXELS[0], "labels": np.arange(4), "classes": np.array(["x"])}, "label 3 has no name among the 1"),
        ({"images": PIXELS[0], "labels": np.zeros(4, int)}, "pictures of 1 classes"),
        ({"images": PIXELS[0][:, :0], "labels": np.arange(4)}, "its pictures have no pixels"),
        ({"images": PIXELS[0], "labels": np.arange(4) % 2, "classes": np.array(["x", "x"])}, "classes holds 'x' twice"),
        ({"images": PIXELS[0], "labels": np.arange(4) % 2, "classes": np.array([1, 2])}, "each as text"),
        ({"images": np.array([None] * 4), "labels": np.arange(4)}, "images is no plain array"),
    ],
)
def test_an_npz_that_holds_something_else_says_what(
    tmp_path: Path, content: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **content)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match=message):
        read("npz", tmp_path / "a.npz", tmp_path / "home")


def test_rows_of_an_npz_are_mapped(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.array([0, 1, 2, 1]))
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    found.items[0].open()
    file = next((tmp_path / "home").rglob("images.npy"))
    assert isinstance(arrays._mapped(file), np.memmap)


# ------------------------------------------------------------------------------------------------ guessing


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


def test_ten_thousand_classes_are_listed(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}").mkdir()
        (tmp_path / f"{number:05}" / "0.png").touch()
    found = read("folder", tmp_path)
    assert len(found.classes) == len(found.items) == 10_000
