"""Pictures that come as arrays: .npz files and the batches of CIFAR."""

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from stages.core.datasets import archives, layouts
from stages.core.datasets.listing import TEST, TRAIN, VAL, Item, Listing
from stages.core.predicting import finding
from stages.core.predicting.pictures import Picture
from stages.core.running.errors import Refusal

IMAGES = ("images", "x", "data")
LABELS = ("labels", "y", "targets")
PREFIXES = {"": "", "train_": TRAIN, "val_": VAL, "valid_": VAL, "test_": TEST}
NAMES = ("classes", "class_names", "label_names")
SIDE, CHANNELS = 32, 3  # of CIFAR
PIXELS = SIDE * SIDE * CHANNELS
PLAIN = {  # all that a pickle of arrays may build
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}

DAMAGE = (  # all that damaged bytes of a pickle are known to end in
    *(pickle.UnpicklingError, EOFError, ValueError, LookupError, AttributeError),
    *(TypeError, OverflowError, MemoryError, ImportError, SystemError),
)


def picture(pixels: np.ndarray) -> Picture:
    """Grey, or height x width x 1 or 3."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    return Picture(Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB"), "L" if pixels.ndim == 2 else "RGB")


# ----------------------------------------------------------------------------------------------------- npz


def read_npz(path: Path, name: str, home: Path, unnamed: Sequence[str] = ()) -> Listing:
    """`images` and `labels`, or the same by split: `x_train`, `y_train`, `test_images`, ...

    `unnamed` are the classes by their numbers where the file does not name them; else they are called by their numbers.
    """
    file = layouts.lone_file(path, (".npz",)) if path.is_dir() else path
    if file is None:
        raise Refusal(f"prepare.source.path: {path} is neither an .npz file nor a folder that holds one")
    path = file
    arrays = {file.stem: file for file in sorted(archives.unpack(path, home).glob("*.npy"))}
    found: list[tuple[str, Path, np.ndarray]] = []
    for prefix, split in PREFIXES.items():
        images, labels = _pair(path, arrays, prefix)
        if images is None or labels is None:
            continue
        pixels, numbers = _pixels(path, images), _labels(path, labels)
        if len(pixels) != len(numbers):
            raise Refusal(f"{path}: {images.stem} holds {len(pixels)} pictures and {labels.stem} {len(numbers)} labels")
        found.append((split, images, numbers))
    if not found:
        raise Refusal(
            f"{path} holds {', '.join(sorted(arrays))}; images and labels, or x_train and y_train, are needed"
        )
    used = sorted({int(number) for _, _, numbers in found for number in np.unique(numbers)})
    if len(used) < 2:
        raise Refusal(f"{path} holds pictures of {len(used)} classes; at least two are needed")
    names = _names(path, arrays, used) or dict(enumerate(unnamed)) or {number: str(number) for number in used}
    _refuse_nameless(path, used, names)
    order = {number: place for place, number in enumerate(names)}
    items = (
        Item(f"{split or 'picture'}-{n:07}", order[int(number)], partial(_row, images, n), split)
        for split, images, numbers in found
        for n, number in enumerate(numbers)
    )
    return Listing(name, tuple(names.values()), tuple(items))


def _pair(path: Path, arrays: Mapping[str, Path], prefix: str) -> tuple[Path | None, Path | None]:
    suffix = f"_{prefix.rstrip('_')}" if prefix else ""
    both = []
    for names in (IMAGES, LABELS):
        spelled = [name for stem in names for name in (f"{prefix}{stem}", f"{stem}{suffix}") if name in arrays]
        both.append(arrays[spelled[0]] if spelled else None)
    if (both[0] is None) != (both[1] is None):
        lone = next(one for one in both if one)
        raise Refusal(f"{path} holds {lone.stem} without its {'labels' if both[0] else 'images'}")
    return both[0], both[1]


def _pixels(path: Path, file: Path) -> np.ndarray:
    array = _load(path, file, "r")
    if array.dtype != np.uint8:
        raise Refusal(f"{path}: {file.stem} is {array.dtype}; pictures are uint8, from 0 to 255")
    if 0 in array.shape[1:]:
        raise Refusal(f"{path}: {file.stem} has the shape {array.shape}: its pictures have no pixels")
    if array.ndim == 3 or (array.ndim == 4 and (array.shape[-1] in (1, 3) or array.shape[1] == 3)):
        return array
    raise Refusal(f"{path}: {file.stem} has the shape {array.shape}; N x height x width [x 1 or 3] is needed")


def _labels(path: Path, file: Path) -> np.ndarray:
    array = _load(path, file, None)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "iu" or (len(array) and array.min() < 0):
        raise Refusal(f"{path}: {file.stem} must hold one whole number from 0 for each picture")
    return array.astype(np.int64)


def _load(path: Path, file: Path, mode: Literal["r"] | None) -> np.ndarray:
    try:
        return np.load(file, mmap_mode=mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Refusal(f"{path}: {file.stem} is no plain array ({error})") from error


def _names(path: Path, arrays: Mapping[str, Path], used: Sequence[int]) -> dict[int, str]:
    """The classes by their numbers, if the file tells them."""
    given = [arrays[name] for name in NAMES if name in arrays]
    if not given:
        return {}
    told = _load(path, given[0], None)
    if told.ndim != 1 or told.dtype.kind not in "US":
        raise Refusal(f"{path}: {given[0].stem} must hold the names of the classes, each as text")
    texts = (one.decode(errors="replace") if isinstance(one, bytes) else one for one in told.tolist())
    names = [finding.normal(one) for one in texts]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise Refusal(f"{path}: {given[0].stem} holds {twice[0]!r} twice")
    return dict(enumerate(names))


def _refuse_nameless(path: Path, used: Sequence[int], names: Mapping[int, str]) -> None:
    nameless = [number for number in used if number not in names]
    if nameless:
        raise Refusal(f"{path}: label {nameless[-1]} has no name among the {len(names)} that its classes have")


@lru_cache(maxsize=4)
def _mapped(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r")


def _row(file: Path, number: int) -> Picture:
    pixels = _mapped(file)[number]
    return picture(pixels.transpose(1, 2, 0) if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3) else pixels)


# --------------------------------------------------------------------------------------------------- CIFAR


def cifar_batches(root: Path) -> Listing | None:
    """The Python or the binary form, of 10 or 100 classes, if `root` or a folder in it holds either."""
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        python = [folder / name for name in ("train", *(f"data_batch_{n}" for n in range(1, 6)))]
        binary = [folder / name for name in ("train.bin", *(f"data_batch_{n}.bin" for n in range(1, 6)))]
        for batches, load, test in ((python, _pickled, "test"), (binary, _binary, "test.bin")):
            learning = [path for path in batches if path.is_file()]
            judging = [
                folder / name for name in (test, test.replace("test", "test_batch")) if (folder / name).is_file()
            ]
            if learning and not judging:
                raise Refusal(f"{folder} lacks its test batch: unpack the archive again")
            if learning:
                return _cifar(folder, learning, judging, load)
    return None


def _cifar(folder: Path, learning: Sequence[Path], judging: Sequence[Path], load: Any) -> Listing:
    hundred = learning[0].stem == "train"
    whole = {"train", "train.bin"} if hundred else {f"data_batch_{n}" for n in range(1, 6)}
    missing = whole - {path.name for path in learning} - {path.stem for path in learning}
    if not hundred and missing:
        raise Refusal(f"{folder} lacks {', '.join(sorted(missing))}: unpack the archive again")
    names = _cifar_names(folder)
    items = [item for path in learning for item in _batch(path, TRAIN, load, len(names))]
    items += [item for path in judging for item in _batch(path, TEST, load, len(names))]
    return Listing(f"cifar{100 if hundred else 10}", names, tuple(items))


def _batch(path: Path, split: str, load: Any, classes: int) -> Iterator[Item]:
    _, labels = load(path)
    for number, label in enumerate(labels):
        if not 0 <= label < classes:
            raise Refusal(f"{path}: picture {number} has the label {label}, and there are {classes} classes")
        yield Item(f"{path.stem}/{number:05}", int(label), partial(_cifar_row, load, path, number), split)


def _cifar_row(load: Any, path: Path, number: int) -> Picture:
    return picture(load(path)[0][number].reshape(CHANNELS, SIDE, SIDE).transpose(1, 2, 0))


def _cifar_names(folder: Path) -> tuple[str, ...]:
    for name in ("fine_label_names.txt", "batches.meta.txt"):
        if (folder / name).is_file():
            return tuple((folder / name).read_text().split())
    for name, key in (("meta", b"fine_label_names"), ("batches.meta", b"label_names")):
        if (folder / name).is_file():
            names = _unpickle(folder / name).get(key)
            if not isinstance(names, list) or not all(isinstance(one, bytes) for one in names):
                raise Refusal(f"{folder / name} does not name the classes of CIFAR: unpack the archive again")
            return tuple(one.decode(errors="replace") for one in names)
    raise Refusal(f"{folder} lacks the names of its classes (batches.meta or meta): unpack the archive again")


@lru_cache(maxsize=2)
def _pickled(path: Path) -> tuple[np.ndarray, Sequence[int]]:
    content = _unpickle(path)
    images, labels = content.get(b"data"), content.get(b"fine_labels", content.get(b"labels"))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise Refusal(f"{path} is no batch of CIFAR: it holds no pictures")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise Refusal(f"{path} is no batch of CIFAR: it holds no list of labels")
    if images.shape != (len(labels), PIXELS):
        raise Refusal(f"{path} is no batch of CIFAR: {len(labels)} labels, and pictures of the shape {images.shape}")
    return images, labels


@lru_cache(maxsize=2)
def _binary(path: Path) -> tuple[np.ndarray, Sequence[int]]:
    """Label bytes (100 classes: coarse, fine), then the pixels, colour by colour."""
    before = 2 if path.stem in ("train", "test") else 1
    size = path.stat().st_size
    if not size or size % (before + PIXELS):
        raise Refusal(f"{path} is cut short: {size} bytes are no whole number of pictures")
    rows = np.memmap(path, np.uint8, "r").reshape(-1, before + PIXELS)
    return rows[:, before:], rows[:, before - 1].tolist()


def _unpickle(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as stream:
            content = _Plain(stream, encoding="bytes").load()
    except DAMAGE as error:
        raise Refusal(f"{path} is no batch of CIFAR ({error})") from error
    if not isinstance(content, dict):
        raise Refusal(f"{path} is no batch of CIFAR: unpack the archive again")
    return content


class _Plain(pickle.Unpickler):
    """Builds arrays and nothing else: any other pickle could run a program."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(*PLAIN[module, name])
