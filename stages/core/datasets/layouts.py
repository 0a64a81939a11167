"""Folders as people arrange them: one for each class, perhaps below one for each split, perhaps wrapped once more."""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from stages.core.datasets import pictures
from stages.core.datasets.listing import TEST, TRAIN, VAL, Item, Listing
from stages.core.datasets.pictures import ENDINGS, Picture, Unreadable
from stages.core.running.errors import Refusal

PREDICT = "predict"
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "seg_train"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "seg_val"), VAL),
    **dict.fromkeys(("test", "testing", "seg_test"), TEST),
    **dict.fromkeys(("pred", "predict", "seg_pred"), PREDICT),
}
IGNORED = ("__MACOSX",)  # what macOS puts into its archives


def read(root: Path, name: str, splits: Mapping[str, str] = SPLIT_NAMES) -> Listing:
    """Class folders, or split folders of class folders."""
    if not root.is_dir():
        raise Refusal(f"prepare.source.path: {root} is not a folder")
    root = unwrapped(root)
    given = {split: unwrapped(folder) for split, folder in _split_folders(root, splits).items()}
    tops = {place: split for split, place in given.items() if split != PREDICT} or {root: ""}
    names = _class_names(tops)
    if len(names) < 2:
        raise Refusal(f"{root} holds {len(names)} class folders; at least two are needed, one for each class")
    numbers = {class_name: number for number, class_name in enumerate(names)}
    items: list[Item] = []
    others = 0
    for top, split in tops.items():
        for folder in folders(top):
            label = numbers[normal(folder.name)]
            for file in walk(folder):
                if file.suffix.lower() in ENDINGS:
                    items.append(item(file, root, label, split))
                else:
                    others += 1
    empty = set(numbers.values()) - {one.label for one in items}
    if empty:
        missing = names[min(empty)]
        raise Refusal(f"class {missing!r} is empty: {root} holds no picture of it ({', '.join(sorted(ENDINGS))})")
    unlabelled = [shown(path.relative_to(root)) for path in walk(given[PREDICT])] if PREDICT in given else []
    return Listing(name, names, ordered(items), tuple(sorted(unlabelled)), others)


def item(path: Path, root: Path, label: int, split: str = "") -> Item:
    return Item(shown(path.relative_to(root)), label, partial(open_picture, path), split)


def ordered(items: list[Item]) -> tuple[Item, ...]:
    """By name, whatever order the file system gave them."""
    return tuple(sorted(items, key=lambda one: (one.name, one.label)))


def open_picture(path: Path) -> Picture:
    """Nothing but a regular file is opened: a pipe would be waited for, forever."""
    if path.is_file():
        return pictures.read(path)
    if path.is_symlink():
        raise Unreadable("it is a link that leads nowhere")
    raise Unreadable("it is no file" if path.exists() else "the file is not there")


def walk(folder: Path) -> Iterator[Path]:
    """Every entry that is no folder, and folders that bear a picture's name; links are followed, loops are not."""
    seen: set[tuple[int, int]] = set()
    for place, below, entries in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(one for one in below if not _hidden(one))
        yield from (Path(place, one) for one in sorted(entries) if not _hidden(one))
        yield from (Path(place, one) for one in below if Path(one).suffix.lower() in ENDINGS)


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not _hidden(path.name))


def unwrapped(root: Path) -> Path:
    """Down through folders that hold nothing but one folder of folders."""
    inner = _only(root)
    return unwrapped(inner) if inner else root


def _only(root: Path) -> Path | None:
    below = folders(root)
    if any(path.suffix.lower() in ENDINGS and not path.is_dir() for path in root.iterdir()):
        return None
    images = [path for path in below if path.name.lower() == "images"]
    if len(below) == 2 and images and "annotations" in {path.name.lower() for path in below}:
        below = images
    return below[0] if len(below) == 1 and folders(below[0]) else None


def normal(name: str) -> str:
    """One spelling for what looks the same, and text for what is no text."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())


def shown(path: Path) -> str:
    return normal(path.as_posix())


def _split_folders(root: Path, splits: Mapping[str, str]) -> dict[str, Path]:
    """None, unless every folder is named for a split, one of them train, and those with labels hold folders."""
    found: dict[str, Path] = {}
    for folder in folders(root):
        split = splits.get(folder.name.lower(), "")
        if not split or (split != PREDICT and not folders(folder)):
            return {}
        if split in found:
            raise Refusal(f"{found[split]} and {folder} both name the {split} split")
        found[split] = folder
    return found if TRAIN in found else {}


def _class_names(tops: Mapping[Path, str]) -> tuple[str, ...]:
    names: set[str] = set()
    for top in tops:
        spelled: dict[str, str] = {}
        for folder in folders(top):
            other = spelled.setdefault(normal(folder.name), folder.name)
            if other != folder.name:
                raise Refusal(f"{top} holds two folders of one name, {normal(other)!r}, spelled in two ways of Unicode")
        names |= spelled.keys()
    return tuple(sorted(names))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in IGNORED
