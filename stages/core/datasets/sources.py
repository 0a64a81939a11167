"""Where pictures come from. A source takes the place of its files, and where to unpack more, and gives a listing."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import params
from stages.core.datasets import archives, arrays, downloads, layouts, spreadsheets
from stages.core.datasets.layouts import SPLIT_NAMES
from stages.core.datasets.listing import TEST, Item, Listing
from stages.core.predicting import finding
from stages.core.predicting.pictures import ENDINGS
from stages.core.running.errors import Refusal

Source = Callable[[Path, Path], Listing]

EUROSAT = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
UCMERCED = (
    *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest"),
    *("freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass"),
    *("parkinglot", "river", "runway", "sparseresidential", "storagetanks", "tenniscourt"),
)
INTEL = ("buildings", "forest", "glacier", "mountain", "sea", "street")
TRASHNET = ("cardboard", "glass", "metal", "paper", "plastic", "trash")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEFECTS = {  # of steel; how the files of each begin, and how its folder is spelled
    "crazing": ("cr", "crazing"),
    "inclusion": ("in", "inclusion"),
    "patches": ("pa", "patches"),
    "pitted_surface": ("ps", "pitted_surface", "pitted"),
    "rolled-in_scale": ("rs", "rolled-in_scale", "rolled"),
    "scratches": ("sc", "scratches"),
}


def listing(settings: params.Source, home: Path) -> Listing:
    """`home` is where downloads and unpacked archives are kept."""
    if settings.path is None:
        place = home if settings.name == "digits" else downloads.fetch(settings.name, home)
    else:
        place = Path(settings.path).expanduser()
        if not place.exists():
            raise Refusal(f"prepare.source.path: {place} is not there")
    if archives.is_archive(place):
        place = archives.unpack(place, home)
    found = SOURCES[settings.name](place, home)
    return replace(found, name=_called(Path(settings.path))) if isinstance(settings, params.Own) else found


def guess(path: Path, home: Path) -> params.Own:
    """How a person would read it."""
    if not path.exists():
        raise Refusal(f"{path} is not there")
    place = archives.unpack(path, home) if archives.is_archive(path) else path
    name = "folder"
    if place.suffix.lower() == ".npz":
        name = "npz"
    elif place.suffix.lower() in spreadsheets.ENDINGS or (place.is_dir() and spreadsheets.found_in(place)):
        name = "csv"
    elif place.is_dir() and len(layouts.folders(layouts.unwrapped(place))) < 2:
        if layouts.lone_file(place, spreadsheets.ENDINGS):
            name = "csv"
        elif layouts.lone_file(place, (".npz",)):
            name = "npz"
    return params.Own(name=name, path=str(path))


def digits(_place: Path, _home: Path) -> Listing:
    """The real handwritten digits of scikit-learn: 8 x 8, 17 shades of grey."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    grey = np.round(found.images * (255 / 16)).astype(np.uint8)
    items = (
        Item(f"digit-{number:04}", int(label), partial(arrays.picture, pixels))
        for number, (pixels, label) in enumerate(zip(grey, found.target, strict=True))
    )
    return Listing("digits", tuple(str(name) for name in found.target_names), tuple(items))


def folder(place: Path, _home: Path) -> Listing:
    return layouts.read(place, "folder")


def csv(place: Path, home: Path) -> Listing:
    return spreadsheets.read(place, "csv", _fence(place, home))


def npz(place: Path, home: Path) -> Listing:
    return arrays.read_npz(place, "npz", home)


def eurosat(place: Path, home: Path) -> Listing:
    if place.is_dir() and not spreadsheets.found_in(place):
        return _checked(layouts.read(place, "eurosat"), EUROSAT)
    found = spreadsheets.read(place, "eurosat", _fence(place, home))
    return _checked(found, EUROSAT)


def ucmerced(place: Path, _home: Path) -> Listing:
    return _checked(layouts.read(place, "ucmerced"), UCMERCED)


def intel(place: Path, _home: Path) -> Listing:
    return _checked(layouts.read(place, "intel"), INTEL)


def trashnet(place: Path, _home: Path) -> Listing:
    return _checked(layouts.read(place, "trashnet"), TRASHNET)


def cifar10(place: Path, home: Path) -> Listing:
    return _checked(_cifar(place, home, "cifar10"), CIFAR10)


def cifar100(place: Path, home: Path) -> Listing:
    found = _cifar(place, home, "cifar100")
    if len(found.classes) != 100:
        raise Refusal(f"cifar100 has 100 classes; {place} has {len(found.classes)}")
    return found


def neudet(place: Path, _home: Path) -> Listing:
    """What others call validation has judged in every publication: it is test here."""
    root = layouts.unwrapped(place)
    flat = sorted(path for path in finding.walk(root) if path.suffix.lower() in ENDINGS)
    if flat and all(path.parent == flat[0].parent for path in flat):
        return _defects_by_file(flat)
    found = layouts.read(place, "neudet", SPLIT_NAMES | dict.fromkeys(("val", "valid", "validation"), TEST))
    spelled = {spelling: name for name, spellings in DEFECTS.items() for spelling in spellings}
    meant = [spelled.get(_spelling(name), name) for name in found.classes]
    names = tuple(dict.fromkeys((*(name for name in DEFECTS if name in meant), *meant)))
    items = tuple(replace(one, label=names.index(meant[one.label])) for one in found.items)
    return _checked(replace(found, classes=names, items=items), DEFECTS)


def _defects_by_file(files: list[Path]) -> Listing:
    names = tuple(DEFECTS)
    numbers = {spelling: names.index(name) for name, spellings in DEFECTS.items() for spelling in spellings}
    items = []
    for path in files:
        spelling = _spelling(re.sub(r"[_-]?\d+$", "", path.stem))
        if spelling not in numbers:
            raise Refusal(f"{path}: the file's name begins with no defect; expected {', '.join(names)}")
        items.append(layouts.item(path, path.parent, numbers[spelling]))
    return Listing("neudet", names, layouts.ordered(items))


def _spelling(name: str) -> str:
    return name.lower().replace("rolled_in", "rolled-in").replace("-scale", "_scale").replace("pitted-", "pitted_")


def _cifar(place: Path, home: Path, name: str) -> Listing:
    if place.is_file() or layouts.lone_file(place, (".npz",)):
        return arrays.read_npz(place, name, home, CIFAR10 if name == "cifar10" else ())
    found = arrays.cifar_batches(place) or _without_superclasses(layouts.read(place, name))
    return replace(found, name=name)


def _without_superclasses(found: Listing) -> Listing:
    """Some copies of CIFAR-100 sort its 100 classes into folders of 20."""
    paths = [one.name.split("/") for one in found.items]
    if len(found.classes) != 20 or not all(len(parts) >= 3 for parts in paths):
        return found
    names = tuple(sorted({parts[-2] for parts in paths}))
    items = (replace(one, label=names.index(parts[-2])) for one, parts in zip(found.items, paths, strict=True))
    return replace(found, classes=names, items=tuple(items))


def _called(path: Path) -> str:
    """The name of a file or folder without what only tells its kind."""
    name = path.expanduser().resolve().name
    kind = next((one for one in (*archives.ENDINGS, *spreadsheets.ENDINGS, ".npz") if name.lower().endswith(one)), "")
    return finding.normal(name[: len(name) - len(kind)] or "pictures")


def _fence(place: Path, home: Path) -> Path | None:
    """What came in an archive stays within it; a person's own CSV may name any file of theirs."""
    return place if place.is_relative_to(home / "unpacked") else None


def _checked(found: Listing, expected: Collection[str]) -> Listing:
    """The classes are those of the data set whose name was given."""
    missing, unknown = sorted(set(expected) - set(found.classes)), sorted(set(found.classes) - set(expected))
    if missing or unknown:
        raise Refusal(
            f"this is not {found.name}: missing {', '.join(missing) or 'nothing'}, "
            f"unknown {', '.join(unknown) or 'nothing'}; other pictures are read by the source folder, csv or npz"
        )
    return found


SOURCES: Mapping[str, Source] = {
    "digits": digits,
    "folder": folder,
    "csv": csv,
    "npz": npz,
    "eurosat": eurosat,
    "ucmerced": ucmerced,
    "intel": intel,
    "trashnet": trashnet,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "neudet": neudet,
}
