"""A split on disk: pixels decoded once, as one memory-mapped array, beside the facts that explain them.

images.npy     uint8, picture x row x column x RGB
labels.npy     int64
pictures.csv   who the pictures are: name, digest of their content, and the groups they belong to
split.json     classes, image size, fit, normalisation, and the digests of the other files
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import tables
from stages.core.running import files
from stages.core.running.errors import Refusal

HELD = ("images.npy", "labels.npy", "pictures.csv")


@dataclass(frozen=True)
class Facts:
    """What a network must know of the pictures it learnt from."""

    dataset: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Facts":
        """As JSON holds them."""
        numbers = tuple(content["mean"]), tuple(content["std"])
        return cls(content["dataset"], tuple(content["classes"]), content["image_size"], *numbers, content["fit"])


@dataclass(frozen=True)
class Roll:
    """Who pictures are, in their order. A content is the digest of a picture's pixels before it was fitted, so that it
    is the same picture at any `image_size`; `groups` are columns that the source told."""

    names: Sequence[str]
    contents: Sequence[str]
    groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Split:
    """`folder` is where it was loaded from, whole."""

    facts: Facts
    images: np.ndarray
    labels: np.ndarray
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def roll(self) -> Roll:
        """Read where it is asked for: the names of a million pictures take room."""
        if self.folder is None:
            raise ValueError("only a split from a folder knows who its pictures are")
        with (self.folder / "pictures.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            names, contents, *groups = zip(*csv.reader(stream), strict=True)
        return Roll(names[1:], contents[1:], {column: values for column, *values in groups})


def write(folder: Path, images: Iterable[np.ndarray], labels: np.ndarray, facts: Facts, roll: Roll) -> None:
    """Pictures are written as they come; a full disk is an error here, where a mapped file would end the process."""
    folder.mkdir(parents=True)
    shape = (len(labels), facts.image_size, facts.image_size, 3)
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    path = folder / "images.npy"
    with files.writing(path), path.open("wb", buffering=2**20) as stream:
        total = hashlib.sha256(header.getvalue())
        stream.write(header.getvalue())
        for image in images:
            total.update(image.tobytes())
            stream.write(image.tobytes())
    np.save(folder / "labels.npy", labels.astype(np.int64))
    columns = {"name": roll.names, "content": roll.contents, **roll.groups}
    rows = zip(*columns.values(), strict=True)
    tables.write(folder / "pictures.csv", list(columns), (dict(zip(columns, row, strict=True)) for row in rows))
    files.write_json(
        folder / "split.json",
        {
            "dataset": facts.dataset,
            "classes": list(facts.classes),
            "image_size": facts.image_size,
            "mean": list(facts.mean),
            "std": list(facts.std),
            "fit": facts.fit,
            "pictures": len(labels),
            "images_sha256": total.hexdigest(),
            "labels_sha256": files.digest(folder / "labels.npy"),
            "pictures_sha256": files.digest(folder / "pictures.csv"),
        },
    )


def load(folder: Path) -> Split:
    """Verified: a cache or a disk that has lost a bit is noticed here and not in a result."""
    facts = files.read_json(folder / "split.json")
    for path in (folder / name for name in HELD):
        if f"{path.stem}_sha256" not in facts:
            raise Refusal(f"{folder} is of an older version, without {path.name}: `dvc repro prepare` makes it anew")
        if files.digest(path) != facts[f"{path.stem}_sha256"]:
            raise Refusal(f"{path} is not what was prepared: `dvc repro -f prepare` makes it anew")
    return Split(
        facts=Facts.read(facts),
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        folder=folder,
    )


def statistics(images: Iterable[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each colour, of pixels from 0 to 1: exact, by counting their 256 levels."""
    counts = np.zeros((3, 256), np.int64)
    for image in images:
        for colour in range(3):
            counts[colour] += np.bincount(image[..., colour].ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(axis=1)
    variance = counts @ levels**2 / counts.sum(axis=1) - mean**2
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(variance, 1e-8)).tolist())
