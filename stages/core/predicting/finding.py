"""From what a person names to the pictures that are meant."""

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from .pictures import ENDINGS

IGNORED = ("__MACOSX",)  # what macOS puts into its archives


@dataclass
class Found:
    """In order: pictures, then what is no picture by its ending, and folders that cannot be looked into, with why."""

    pictures: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)


def find(names: Sequence[str]) -> Found:
    """A file that is named is meant, whatever its ending; a folder means the pictures in it and below it."""
    found = Found()
    for name in names:
        if os.path.isdir(name):
            for path in walk(Path(name), onerror=lambda error: _note(found, error)):
                (found.pictures if is_picture(path) else found.others).append(str(path))
        else:
            found.pictures.append(name)
    return found


def _note(found: Found, error: OSError) -> None:
    found.closed[os.fsdecode(error.filename)] = error.strerror or str(error)


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def _stop(error: OSError) -> NoReturn:
    raise error


def walk(
    folder: Path, above: Collection[tuple[int, int]] = (), onerror: Callable[[OSError], object] = _stop
) -> Iterator[Path]:
    """Every entry that is no folder, and folders that bear a picture's name; links are followed, loops are not.

    `above` are folders that a link must not lead back to. A folder that cannot be read is an error, not empty.
    """
    seen = set(above)
    for place, below, entries in os.walk(folder, followlinks=True, onerror=onerror):
        known = identity(place)
        if known in seen:
            below.clear()
            continue
        seen.add(known)
        below[:] = sorted(one for one in below if not hidden(one))
        yield from (Path(place, one) for one in sorted(entries) if not hidden(one))
        yield from (Path(place, one) for one in below if is_picture(Path(one)))


def identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def hidden(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def normal(name: str) -> str:
    """One spelling for what looks the same, and text for what is no text."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())
