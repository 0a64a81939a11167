"""Where pictures come from. Contract: a source yields class names, and items that know their label and open."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.core import params
from stages.core.datasets import pictures
from stages.core.running.errors import Refusal

ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Item:
    """One picture: `open` gives its pixels as RGB."""

    name: str
    label: int
    open: Callable[[], Image.Image]


@dataclass(frozen=True)
class Listing:
    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    other_files: int = 0  # beside the pictures, by their ending


def digits(_settings: params.Digits) -> Listing:
    """The real handwritten digits of scikit-learn: 8 x 8, 17 shades of grey."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    grey = np.round(found.images * (255 / 16)).astype(np.uint8)
    items = (
        Item(f"digit-{number:04}", int(label), lambda pixels=pixels: Image.fromarray(pixels).convert("RGB"))
        for number, (pixels, label) in enumerate(zip(grey, found.target, strict=True))
    )
    return Listing("digits", tuple(str(name) for name in found.target_names), tuple(items))


def folder(settings: params.Folder) -> Listing:
    """One folder for each class, pictures anywhere below it."""
    root = Path(settings.path).expanduser()
    if not root.is_dir():
        raise Refusal(f"prepare.source.path: {root} is not a folder")
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise Refusal(f"{root} holds {len(classes)} class folders; at least two are needed, one for each class")
    items: list[Item] = []
    others = 0
    for label, name in enumerate(classes):
        found = sorted(path for path in (root / name).rglob("*") if path.is_file())
        files = [path for path in found if path.suffix.lower() in ENDINGS]
        others += len(found) - len(files)
        if not files:
            raise Refusal(f"class {name!r} is empty: {root / name} holds no picture ({', '.join(sorted(ENDINGS))})")
        items += [
            Item(path.relative_to(root).as_posix(), label, lambda path=path: pictures.read(path)) for path in files
        ]
    return Listing(root.resolve().name, tuple(classes), tuple(items), others)


SOURCES: Mapping[str, Callable[[Any], Listing]] = {"digits": digits, "folder": folder}
