"""Folders as people arrange them: one for each class, perhaps below one for each split, perhaps wrapped once more."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from stages.core.datasets.listing import TEST, TRAIN, VAL, Item, Listing
from stages.core.predicting import pictures
from stages.core.predicting.finding import hidden, identity, is_picture, normal, walk
from stages.core.predicting.pictures import ENDINGS
from stages.core.running.errors import Refusal

PREDICT = "predict"
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "seg_train"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "seg_val"), VAL),
    **dict.fromkeys(("test", "testing", "seg_test"), TEST),
    **dict.fromkeys(("pred", "predict", "seg_pred"), PREDICT),
}


def read(root: Path, name: str, splits: Mapping[str, str] = SPLIT_NAMES) -> Listing:
    """Class folders, or split folders of class folders."""
    if not root.is_dir():
        raise Refusal(f"prepare.source.path: {root} is not a folder")
    root = unwrapped(root)
    given = {split: _inside(folder, splits) for split, folder in _split_folders(root, splits).items()}
    tops = {place: split for split, place in given.items() if split != PREDICT} or {root: ""}
    names = _class_names(tops)
    if len(names) < 2:
        raise Refusal(f"{root} holds {len(names)} class folders; at least two are needed, one for each class")
    numbers = {class_name: number for number, class_name in enumerate(names)}
    items: list[Item] = []
    loose = [file for place in {root, *tops} for file in files_in(place)]
    for top, split in tops.items():
        above = _identities(top)
        for folder in folders(top):
            label = numbers[normal(folder.name)]
            for file in walk(folder, above):
                if is_picture(file):
                    items.append(item(file, root, label, split))
                else:
                    loose.append(file)
    empty = set(numbers.values()) - {one.label for one in items}
    if empty:
        missing = names[min(empty)]
        raise Refusal(f"class {missing!r} is empty: {root} holds no picture of it ({', '.join(sorted(ENDINGS))})")
    loose += walk(given[PREDICT]) if PREDICT in given else []
    unlabelled = sorted(shown(path.relative_to(root)) for path in loose if is_picture(path))
    return Listing(name, names, ordered(items), tuple(unlabelled), len(loose) - len(unlabelled))


def item(path: Path, root: Path, label: int, split: str = "") -> Item:
    return Item(shown(path.relative_to(root)), label, partial(pictures.open_picture, path), split)


def ordered(items: list[Item]) -> tuple[Item, ...]:
    """By name, whatever order the file system gave them."""
    return tuple(sorted(items, key=lambda one: (one.name, one.label)))


def folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        return sorted(root / entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))


def files_in(root: Path) -> list[Path]:
    """Beside its folders."""
    with os.scandir(root) as entries:
        return sorted(root / entry.name for entry in entries if not entry.is_dir() and not hidden(entry.name))


def lone_file(root: Path, endings: Collection[str]) -> Path | None:
    """The only one of its kind, in the folder or in one of its folders."""
    found = [path for place in (root, *folders(root)) for path in files_in(place) if path.suffix.lower() in endings]
    return found[0] if len(found) == 1 else None


def unwrapped(root: Path) -> Path:
    """Down through folders that hold nothing but one folder of folders."""
    inner = _only(root)
    return unwrapped(inner) if inner else root


def _only(root: Path) -> Path | None:
    below = folders(root)
    if any(is_picture(path) for path in files_in(root)):
        return None
    images = [path for path in below if path.name.lower() == "images"]
    if len(below) == 2 and images and "annotations" in {path.name.lower() for path in below}:
        below = images
    return below[0] if len(below) == 1 and folders(below[0]) else None


def shown(path: Path) -> str:
    return normal(path.as_posix())


def _split_folders(root: Path, splits: Mapping[str, str]) -> dict[str, Path]:
    """None, unless every folder is named for a split."""
    below = folders(root)
    if not below or any(folder.name.lower() not in splits for folder in below):
        return {}
    found: dict[str, Path] = {}
    for folder in below:
        split = splits[folder.name.lower()]
        if split in found:
            raise Refusal(f"{found[split]} and {folder} both name the {split} split")
        if split != PREDICT and not folders(folder):
            raise Refusal(f"{folder} is named for a split and holds no class folders; do a CSV's rows name its labels?")
        found[split] = folder
    if TRAIN not in found:
        raise Refusal(f"{root} holds the splits {', '.join(sorted(found))} and no train: nothing could be learnt")
    return found


def _inside(split: Path, splits: Collection[str]) -> Path:
    """Past a folder that repeats the name of a split, or `images`; any other may be the only class there."""
    below = [path for path in folders(split) if path.name.lower() != "annotations"]
    if len(below) == 1 and below[0].name.lower() in (*splits, "images") and folders(below[0]):
        return _inside(below[0], splits)
    return split


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


def _identities(folder: Path) -> set[tuple[int, int]]:
    """Of a folder and all above it, by either way that leads there."""
    real = folder.resolve()
    return {identity(path) for path in (folder, *folder.parents, real, *real.parents)}
