"""A split on disk: pixels decoded once, as one memory-mapped array, beside the facts that explain them.

images.npy   uint8, picture x row x column x RGB
labels.npy   int64
split.json   classes, image size, normalisation, and the digests of the two arrays
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.running import files
from stages.core.running.errors import Refusal

PIXELS = 2**22  # in floating point at once, while statistics are gathered


@dataclass(frozen=True)
class Facts:
    """What a network must know of the pictures it learnt from."""

    dataset: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Facts":
        """As JSON holds them."""
        numbers = tuple(content["mean"]), tuple(content["std"])
        return cls(content["dataset"], tuple(content["classes"]), content["image_size"], *numbers)


@dataclass(frozen=True)
class Split:
    facts: Facts
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def write(folder: Path, images: Iterable[np.ndarray], labels: np.ndarray, facts: Facts) -> None:
    """Pictures are written as they come."""
    folder.mkdir(parents=True)
    shape = (len(labels), facts.image_size, facts.image_size, 3)
    stored = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for position, image in enumerate(images):
        stored[position] = image
    stored.flush()
    np.save(folder / "labels.npy", labels.astype(np.int64))
    files.write_json(
        folder / "split.json",
        {
            "dataset": facts.dataset,
            "classes": list(facts.classes),
            "image_size": facts.image_size,
            "mean": list(facts.mean),
            "std": list(facts.std),
            "pictures": len(labels),
            "images_sha256": files.digest(folder / "images.npy"),
            "labels_sha256": files.digest(folder / "labels.npy"),
        },
    )


def load(folder: Path) -> Split:
    """Verified: a cache or a disk that has lost a bit is noticed here and not in a result."""
    facts = files.read_json(folder / "split.json")
    for name in ("images", "labels"):
        if files.digest(folder / f"{name}.npy") != facts[f"{name}_sha256"]:
            raise Refusal(f"{folder / name}.npy is not what was prepared: `dvc repro -f prepare` makes it anew")
    return Split(
        facts=Facts.read(facts),
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
    )


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each colour, of pixels from 0 to 1, gathered in chunks."""
    total, squares = np.zeros(3), np.zeros(3)
    chunk = max(1, PIXELS // images[0, ..., 0].size)
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].reshape(-1, 3) / 255.0
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    count = images[..., 0].size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return tuple(mean.tolist()), tuple(std.tolist())
