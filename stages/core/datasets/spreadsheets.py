"""Data sets whose labels stand in CSV files."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stages.core.datasets import layouts
from stages.core.datasets.listing import TEST, TRAIN, VAL, Item, Listing
from stages.core.predicting import finding, pictures
from stages.core.running.errors import Refusal

COLUMNS = {  # what a column may be called
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_id"),
    "label": ("label", "class", "category", "target"),
    "class": ("classname", "class_name", "label_name"),
    "split": ("split", "set", "subset"),
}
SPLITS = {"": "", "train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST} | dict.fromkeys(
    ("val", "valid", "validation"), VAL
)
FILES = {"train.csv": TRAIN, "val.csv": VAL, "valid.csv": VAL, "validation.csv": VAL, "test.csv": TEST}
MAP = "label_map.json"
ENDINGS = (".csv", ".tsv")


@dataclass(frozen=True)
class Row:
    where: str  # file and line, for a person
    path: str
    label: str
    name: str  # of the class, where a column of its own tells it
    split: str
    groups: Mapping[str, str]  # the cells of all further columns


def found_in(folder: Path) -> Path | None:
    """The folder, or a folder in it, that holds train.csv."""
    return next((place for place in (folder, *layouts.folders(folder)) if (place / "train.csv").is_file()), None)


def read(path: Path, name: str, fence: Path | None = None) -> Listing:
    """One file of path, label[, split]; or a folder of train.csv, val.csv, test.csv. No picture lies beyond `fence`."""
    tables = _tables(path)
    if not tables:
        raise Refusal(
            f"prepare.source.path: {path} is neither a CSV file nor a folder that holds train.csv or a single CSV file"
        )
    place = next(iter(tables)).parent
    rows = [row for table, split in tables.items() for row in _rows(table, split)]
    if fence:
        _stay_inside(fence, place, rows)
    known = _label_map(place / MAP)
    named = [(row, _class_of(row, known)) for row in rows]
    labels = known.values() if known else sorted({label for _, label in named if label}, key=_as_counted)
    classes = tuple(dict.fromkeys(labels))
    order = {label: number for number, label in enumerate(classes)}
    items = [
        Item(
            name=finding.normal(row.path),
            label=order[label],
            open=partial(pictures.open_picture, place / row.path),
            given=row.split,
            groups=row.groups,
        )
        for row, label in named
        if label
    ]
    if len({item.label for item in items}) < 2:
        raise Refusal(f"{path} names {len({item.label for item in items})} classes; at least two are needed")
    unlabelled = tuple(sorted(finding.normal(row.path) for row, label in named if not label))
    return Listing(name, classes, layouts.ordered(items), unlabelled)


def _tables(path: Path) -> dict[Path, str]:
    """Each with the split that its name tells."""
    if path.is_file():
        return {path: ""}
    place = found_in(path)
    if place:
        return {place / file: split for file, split in FILES.items() if (place / file).is_file()}
    lone = layouts.lone_file(path, ENDINGS)
    return {lone: ""} if lone else {}


def _stay_inside(fence: Path, place: Path, rows: Sequence[Row]) -> None:
    """An archive from somewhere must not name files of whoever unpacks it."""
    for row in rows:
        if not Path(os.path.normpath(place / row.path)).is_relative_to(os.path.normpath(fence)):
            raise Refusal(f"{row.where}: {row.path!r} lies outside the archive")


def _rows(path: Path, split: str) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            header = [column.strip().lower() for column in next(reader, [])]
            at = {role: _column(header, names) for role, names in COLUMNS.items()}
            if at["path"] is None or (at["label"] is None and at["class"] is None):
                raise Refusal(f"{path} has the columns {', '.join(header)}; path and label are needed")
            for cells in reader:
                if cells:
                    yield _row(f"{path}, line {reader.line_num}", cells, header, at, split)
    except UnicodeDecodeError as error:
        raise Refusal(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise Refusal(f"{path} is no CSV: {error}") from error


def _row(where: str, cells: Sequence[str], header: Sequence[str], at: Mapping[str, int | None], split: str) -> Row:
    if len(cells) != len(header):
        raise Refusal(f"{where}: {len(cells)} cells under {len(header)} columns; is a name with a comma not in quotes?")
    values = {role: "" if column is None else cells[column].strip() for role, column in at.items()}
    if not values["path"]:
        raise Refusal(f"{where}: the path is empty")
    told = values["split"].lower()
    if told not in SPLITS:
        raise Refusal(f"{where}: {values['split']!r} is no split; allowed: train, val, test, or nothing")
    groups = {
        column: sys.intern(cell.strip())
        for number, (column, cell) in enumerate(zip(header, cells, strict=True))
        if column and number not in at.values()
    }
    return Row(where, values["path"], values["label"], values["class"], split or SPLITS[told], groups)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _label_map(path: Path) -> dict[str, str]:
    """What a row may say, and the class it means, in the order of their numbers; the file may be either way round."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        pairs = [(str(one), str(other)) for one, other in content.items()]
    except (json.JSONDecodeError, AttributeError):
        raise Refusal(f"{path} is no map of class names to numbers") from None
    if not all(other.isdecimal() for _, other in pairs):
        pairs = [(other, one) for one, other in pairs]
    if not all(other.isdecimal() for _, other in pairs):
        raise Refusal(f"{path} maps neither class names to numbers nor numbers to class names")
    numbers = {finding.normal(one): int(other) for one, other in pairs}
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise Refusal(f"{path}: the numbers must be 0 to {len(numbers) - 1}, each once")
    names = sorted(numbers, key=lambda name: numbers[name])
    return {str(number): name for number, name in enumerate(names)} | {name: name for name in names}


def _class_of(row: Row, known: Mapping[str, str]) -> str:
    """Empty where the row has no label."""
    if not known:
        return finding.normal(row.name or row.label)
    told = {_looked_up(row, value, known) for value in (row.label, row.name) if value}
    if len(told) > 1:
        raise Refusal(f"{row.where}: label {row.label!r} and class {row.name!r} contradict {MAP}")
    return told.pop() if told else ""


def _looked_up(row: Row, value: str, known: Mapping[str, str]) -> str:
    name = known.get(finding.normal(value))
    if name is None:
        names = list(dict.fromkeys(known.values()))
        few = names[:10]
        more = ", ..." if len(names) > len(few) else ""
        raise Refusal(f"{row.where}: label {value!r} is not in {MAP}; it has {', '.join(few)}{more}")
    return name


def _as_counted(label: str) -> tuple[int, str]:
    """2 before 10."""
    return (int(label), label) if label.isdecimal() else (0, label)
