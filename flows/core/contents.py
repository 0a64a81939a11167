"""md5 sums as DVC computes them, of what git holds: no checkout, no data."""

import hashlib
import json
from collections.abc import Collection
from functools import lru_cache

import pathspec

from flows.core.repository import Repository

IGNORED = ".dvcignore"


def md5(repository: Repository, rev: str, path: str, but: Collection[str] = ()) -> str | None:
    """Of a file, or of a folder without some paths in it; None where git has nothing there."""
    files = repository.listing(rev, path)
    if path in files:
        return of_file(repository, files[path])
    known = _ignored(repository.read(rev, IGNORED) or b"")
    seen = {name: blob for name, blob in files.items() if not known.match_file(name) and not _below(name, but)}
    return (
        of_folder({name[len(path) + 1 :]: of_file(repository, blob) for name, blob in seen.items()}) if seen else None
    )


@lru_cache(maxsize=65536)
def of_file(repository: Repository, blob: str) -> str:
    return _md5(repository.blob(blob))


def of_folder(files: dict[str, str]) -> str:
    """DVC's listing of a folder is a file of its own, and known by its md5."""
    listing = [{"md5": digest, "relpath": path} for path, digest in sorted(files.items())]
    return f"{_md5(json.dumps(listing, sort_keys=True).encode())}.dir"


def _below(path: str, folders: Collection[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


@lru_cache(maxsize=64)
def _ignored(patterns: bytes) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines(patterns.decode().splitlines())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
