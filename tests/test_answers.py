"""Answers on disk: who was asked, what was said, and which two of them may be compared."""

import csv
import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.core import answers, tables
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.running import files
from stages.core.running.errors import Refusal

CLASSES = ("cat", "dog", "001")
LABELS = np.array([2, 0, 1, 1])
NAMES = ["a/one.png", "a/two, or three.png", "b/four.png", "b/fünf.png"]
CONTENTS = ["aa", "bb", "cc", "dd"]


def split(folder: Path, size: int = 4, classes: tuple[str, ...] = CLASSES, labels: np.ndarray = LABELS) -> Split:
    facts = storage.Facts("small", classes, size, (0.5,) * 3, (0.2,) * 3, "crop")
    images = np.random.default_rng(size).integers(0, 255, (4, size, size, 3), np.uint8)
    storage.write(folder, iter(images), labels, facts, storage.Roll(NAMES, CONTENTS, {"camera": ["A", "B", "", "A"]}))
    return storage.load(folder)


def chances(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), 4)


def written(folder: Path, asked: Split) -> Path:
    answers.write(folder, asked, {"teacher": chances(0), "student": chances(1)})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "answers", split(tmp_path / "test"))


def test_answers_come_back(folder: Path) -> None:
    found = answers.read(folder)
    assert found.classes == CLASSES
    assert found.labels.tolist() == LABELS.tolist()
    assert {name: value.dtype for name, value in found.probabilities.items()} == dict.fromkeys(
        ("teacher", "student"), np.dtype("float32")
    )
    for seed, name in enumerate(("teacher", "student")):
        assert np.allclose(found.probabilities[name], chances(seed), atol=1e-7)


def test_the_table_for_people_names_pictures_classes_and_answers(folder: Path) -> None:
    with (folder / "answers.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        *("picture", "name", "label"),
        *("teacher", "teacher_confidence", "student", "student_confidence"),
    ]
    assert [(row["picture"], row["name"], row["label"]) for row in rows] == [
        (str(number), NAMES[number], CLASSES[LABELS[number]]) for number in range(4)
    ]
    for row, said in zip(rows, chances(1), strict=True):
        assert row["student"] == CLASSES[said.argmax()]
        assert float(row["student_confidence"]) == pytest.approx(said.max(), abs=1e-6)


def test_the_pictures_are_known_by_content_and_label(folder: Path) -> None:
    lines = 'aa "001"\nbb "cat"\ncc "dog"\ndd "dog"\n'
    assert answers.read(folder).test == hashlib.sha256(lines.encode()).hexdigest()


def test_other_sizes_of_the_same_pictures_are_comparable(folder: Path, tmp_path: Path) -> None:
    larger = written(tmp_path / "larger", split(tmp_path / "larger-test", size=8))
    answers.comparable(answers.read(folder), answers.read(larger))


def test_other_labels_or_classes_are_not_comparable(folder: Path, tmp_path: Path) -> None:
    first = answers.read(folder)
    relabelled = written(tmp_path / "b", split(tmp_path / "b-test", labels=np.array([2, 0, 1, 0])))
    with pytest.raises(Refusal, match="other test pictures"):
        answers.comparable(first, answers.read(relabelled))
    renamed = written(tmp_path / "c", split(tmp_path / "c-test", classes=("cat", "wolf", "001")))
    with pytest.raises(Refusal, match="only one has 'dog'"):
        answers.comparable(first, answers.read(renamed))
    with pytest.raises(Refusal, match="in another order"):
        answers.comparable(first, replace(first, classes=("dog", "cat", "001")))


def test_the_same_answers_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = written(tmp_path / "again", storage.load(tmp_path / "test"))
    assert files.digest(again) == files.digest(folder)


def test_a_full_disk_is_told_with_the_file(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    """The system names none."""
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        tables.write(Path("/dev/full"), ["a"], [{"a": 1}])

    def full(*_given: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*probabilities\.npz'"):
        written(folder, storage.load(tmp_path / "test"))
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*answers\.json\.partial'"):
        files.write_json(folder / "answers.json", {})


def test_no_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds no answers: `dvc repro"):
        answers.read(tmp_path)


def test_damaged_answers_are_refused(folder: Path) -> None:
    content = bytearray((folder / "probabilities.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "probabilities.npz").write_bytes(content)
    with pytest.raises(Refusal, match=r"npz is not the file that answers\.json was written with"):
        answers.read(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "has schema 2, this version reads 1"),
        ({"names": ["teacher", "nobody"]}, "cannot be read as answers .*nobody"),
        ({"classes": None}, "cannot be read as answers"),
    ],
)
def test_a_damaged_index_is_refused(folder: Path, change: dict[str, object], said: str) -> None:
    path = folder / "answers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Refusal, match=said):
        answers.read(folder)


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04 and no more", b""])
def test_numbers_that_are_none_are_refused(folder: Path, content: bytes) -> None:
    """Whatever their digest says."""
    (folder / "probabilities.npz").write_bytes(content)
    index = json.loads((folder / "answers.json").read_text())
    index["probabilities_sha256"] = files.digest(folder / "probabilities.npz")
    (folder / "answers.json").write_text(json.dumps(index))
    with pytest.raises(Refusal, match="cannot be read as answers"):
        answers.read(folder)


def test_an_index_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "answers.json").write_text('{"schema": 1,')
    with pytest.raises(Refusal, match="cannot be read as answers"):
        answers.read(folder)
