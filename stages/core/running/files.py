"""Files appear whole or not at all, and every file has a digest."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INDEXES = ("split.json", "model.json", "advice.json")  # such a file states the digest of everything beside it


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's index, or else of its relative names and contents."""
    if path.is_dir():
        for index in INDEXES:
            if (path / index).is_file():
                return digest(path / index)
        listing = "".join(f"{file.relative_to(path).as_posix()} {digest(file)}\n" for file in _files(path))
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Keys keep their order; a value that is not finite is refused, since JSON has no word for it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with writing(partial):
        partial.write_text(text, encoding="utf-8")
    publish(partial, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The system does not say which file it could not write; a person must know."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from error


def publish(partial: Path, final: Path) -> None:
    """Move a finished file or folder to its place, safe against a crash of the machine."""
    for file in _files(partial) if partial.is_dir() else [partial]:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    if final.is_dir():
        old = final.with_name(final.name + ".old.partial")
        remove(old)
        os.replace(final, old)
        os.replace(partial, final)
        remove(old)
    else:
        os.replace(partial, final)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
