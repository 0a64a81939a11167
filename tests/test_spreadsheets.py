"""CSV files become a listing, or a reason that names the line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.core.datasets import sources
from stages.core.predicting.pictures import Unreadable
from stages.core.running.errors import Refusal
from tests.listings import csv_of, folders, given, packed, read, shade


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


def test_further_columns_are_kept_for_groups(tmp_path: Path) -> None:
    text = "path, Camera ,label,\none.png, A ,b,1\ntwo.png,,a,2\nsub/four.png,B,b,3\n"
    found = read("csv", csv_of(tmp_path, text))
    assert {item.name: item.groups for item in found.items} == {
        "one.png": {"camera": "A"},
        "two.png": {"camera": ""},
        "sub/four.png": {"camera": "B"},
    }


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
