"""What networks answered to the same pictures, kept so that any two of them can be compared later, in other runs too.

answers.json        which pictures, with which labels; classes, networks, and the digest of the numbers
answers.csv         for people: each picture, and what each network said of it
probabilities.npz   float32, picture x class, for each network; and the labels
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from stages.core import tables
from stages.core.datasets.storage import Split
from stages.core.running import files
from stages.core.running.errors import Refusal

SCHEMA = 1
LABELS = "labels"
INDEX, NUMBERS = "answers.json", "probabilities.npz"


@dataclass(frozen=True)
class Answers:
    """`test` says which pictures with which labels, in which order, whatever size they were shown in."""

    test: str
    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: dict[str, np.ndarray]


def write(folder: Path, split: Split, probabilities: Mapping[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: chances.astype(np.float32) for name, chances in probabilities.items()}
    with files.writing(folder / NUMBERS):
        np.savez(folder / NUMBERS, allow_pickle=False, **{LABELS: split.labels}, **numbers)
    _for_people(folder / "answers.csv", split, numbers)
    content = {
        "schema": SCHEMA,
        "test": identity(split),
        "pictures": len(split),
        "classes": list(split.facts.classes),
        "names": list(numbers),
        "probabilities_sha256": files.digest(folder / NUMBERS),
    }
    files.write_json(folder / INDEX, content)


def read(folder: Path) -> Answers:
    path, numbers = folder / INDEX, folder / NUMBERS
    if not path.is_file() or not numbers.is_file():
        raise Refusal(f"{folder} holds no answers: `dvc repro evaluate benchmark` writes them")
    try:
        told = files.read_json(path)
        if told["schema"] != SCHEMA:
            raise Refusal(f"{path} has schema {told['schema']}, this version reads {SCHEMA}: `dvc repro` renews it")
        if files.digest(numbers) != told["probabilities_sha256"]:
            raise Refusal(f"{numbers} is not the file that {INDEX} was written with: `dvc checkout` brings it back")
        with numbers.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            probabilities = {name: held[name] for name in told["names"]}
            return Answers(told["test"], tuple(told["classes"]), held[LABELS], probabilities)
    except (ValueError, KeyError, TypeError, BadZipFile, EOFError) as error:
        raise Refusal(f"{path} cannot be read as answers ({error}): `dvc checkout` brings it back") from error


def comparable(first: Answers, second: Answers) -> None:
    """Answers to other pictures differ for reasons that are not the networks'."""
    if first.classes != second.classes:
        raise Refusal(
            "these answers are to other classes "
            f"({len(first.classes)} and {len(second.classes)}: {_differing(first, second)}): they cannot be compared"
        )
    if first.test != second.test:
        raise Refusal(
            f"these answers are to other test pictures ({len(first.labels)} and {len(second.labels)}), other labels or "
            "another order of them: they cannot be compared; compare runs of one data set, split and seed"
        )


def identity(split: Split) -> str:
    """Of pictures and labels, in order."""
    contents = split.roll().contents
    told = zip(contents, split.labels.tolist(), strict=True)
    lines = "".join(f"{content} {json.dumps(split.facts.classes[label])}\n" for content, label in told)
    return hashlib.sha256(lines.encode()).hexdigest()


def _for_people(path: Path, split: Split, probabilities: Mapping[str, np.ndarray]) -> None:
    names = np.array(split.facts.classes)
    columns = {"picture": np.arange(len(split)), "name": split.roll().names, "label": names[split.labels]}
    for name, chances in probabilities.items():
        columns[name] = names[chances.argmax(axis=1)]
        columns[f"{name}_confidence"] = chances.max(axis=1).astype(float).round(6)
    rows = zip(*columns.values(), strict=True)
    tables.write(path, list(columns), (dict(zip(columns, row, strict=True)) for row in rows))


def _differing(first: Answers, second: Answers) -> str:
    """The first class that only one of them has, or the first two that change places."""
    alone = sorted(set(first.classes) ^ set(second.classes))
    return f"only one has {alone[0]!r}" if alone else "in another order"
