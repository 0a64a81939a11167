"""What DVC keeps under its digests, in the cache or else in the remote, and the digests it would give."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

FOLDER = ".dir"  # ends the digest of a folder, whose object is a list of its files


class Objects:
    """Of the DVC repository here; where there is none, nothing is kept."""

    def __init__(self) -> None:
        self._listings: dict[str, Mapping[str, str] | None] = {}

    def content(self, md5: str) -> bytes | None:
        """Only what has the digest that it is kept under."""
        for store in self._stores:
            try:
                content = store.fs.cat_file(store.oid_to_path(md5))
            except Exception:  # noqa: BLE001, S112 - a remote may fail in its own ways; what it lacks is unknown
                continue
            if _md5(content) == md5.removesuffix(FOLDER):
                return content
        return None

    def listing(self, md5: str) -> Mapping[str, str] | None:
        """Digests of a folder's files by their names."""
        if md5 not in self._listings:
            content = self.content(md5)
            found = None if content is None else {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
            self._listings[md5] = found
        return self._listings[md5]

    def file(self, folder: str, name: str) -> bytes | None:
        """One file of a folder with this digest."""
        md5 = (self.listing(folder) or {}).get(name)
        return self.content(md5) if md5 else None

    @cached_property
    def _stores(self) -> list[Any]:
        from dvc.config import ConfigError
        from dvc.exceptions import DvcException, NotDvcRepoError
        from dvc.repo import Repo

        try:
            repository = Repo()
        except NotDvcRepoError:
            return []
        stores = [repository.cache.local]
        try:
            return [*stores, repository.cloud.get_remote_odb()]
        except (ConfigError, DvcException):
            return stores


def is_cached(md5: str) -> bool:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return bool(Repo().cache.local.exists(md5))
    except NotDvcRepoError:
        return False


def of_path(path: Path) -> str:
    if path.is_file():
        return _md5(path.read_bytes())
    found = (file for file in path.rglob("*") if file.is_file())
    return of_files((file.relative_to(path).as_posix(), _md5(file.read_bytes())) for file in found)


def of_commit(rev: str, path: str) -> str | None:
    """Of a file or folder as git keeps it."""
    entries = [line.split(maxsplit=3) for line in _git("ls-tree", "-r", "--full-tree", rev, "--", path).splitlines()]
    found = {name: _md5(_content(blob)) for _, _, blob, name in entries}
    if path in found:
        return found[path]
    return of_files((name.removeprefix(f"{path}/"), md5) for name, md5 in found.items()) if found else None


def of_files(entries: Iterable[tuple[str, str]]) -> str:
    """DVC's digest of a folder: that of the list which it keeps as the folder's object."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    tree = Tree()
    for name, md5 in entries:
        tree.add(tuple(name.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    return str(tree.oid)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _content(blob: str) -> bytes:
    return subprocess.run(["git", "cat-file", "blob", blob], capture_output=True, check=True).stdout


def _git(*words: str) -> str:
    return subprocess.run(["git", "-c", "core.quotePath=off", *words], capture_output=True, text=True).stdout
