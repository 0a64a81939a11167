"""Small data sets of every kind, and what the tests of them ask."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.core import params
from stages.core.datasets import sources
from stages.core.datasets.listing import Listing

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (6, 4, 32, 32, 3), np.uint8)  # five batches of four pictures, and test
LABELS = np.arange(24).reshape(6, 4) % 10


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


def csv_of(root: Path, text: str, name: str = "labels.csv") -> Path:
    for shade, file in enumerate(("one.png", "two.png", "three.png", "sub/four.png")):
        picture(root / file, shade)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def packed(root: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(root / "packed"), "zip", folder))
