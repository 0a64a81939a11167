"""What the DVC remote really holds; DVC is imported only here and in `reproducing`, since that costs a second."""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from flows.core.repository import Repository

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc_data.hashfile.db import HashFileDB

READ = ("dvc.yaml", "dvc.lock", ".dvc/config")


def missing(checkout: Path, stages: Collection[str]) -> list[str]:
    """Outputs of these stages of which the remote lacks anything, as dvc.lock names it; nothing is trusted but it."""
    with Repo(str(checkout), config={"core": {"no_scm": True}}) as repo:
        outs = [out for stage in repo.index.stages if getattr(stage, "name", "") in stages for out in kept(stage.outs)]
        return lacking(repo, outs)


def lacking(repo: Repo, outs: Sequence["Output"]) -> list[str]:
    """Where a folder's list is in the remote, it is that one which is read: it might be spoilt."""
    store = repo.cloud.get_remote_odb()
    wanted = {out.def_path: objects(out, store, repo.cache.local) for out in outs}
    there = set(store.oids_exist(sorted({one for ids in wanted.values() for one in ids or ()})))
    return [path for path, ids in wanted.items() if ids is None or not ids <= there]


def missing_at(repository: Repository, rev: str, stages: Collection[str]) -> list[str]:
    """As above, of a commit, without a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        for path in READ:
            content = repository.read(rev, path)
            if content is not None:
                target = Path(folder) / path
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content)
        return missing(Path(folder), stages)


def kept(outs: Iterable["Output"]) -> Iterator["Output"]:
    """Those whose content DVC keeps."""
    return (out for out in outs if out.use_cache)


def name(out: "Output") -> str:
    """Of the object that is the output, or lists its files; empty where dvc.lock does not know it."""
    return (out.hash_info.value or "") if out.hash_info else ""


def objects(out: "Output", *stores: "HashFileDB") -> set[str] | None:
    """Names of all objects of an output: of a folder its list and its files; None where no store has the list."""
    if not out.hash_info or not out.hash_info.isdir:
        return {name(out)} - {""} or None
    for store in stores:
        try:
            tree = Tree.load(store, out.hash_info)
        except (FileNotFoundError, ObjectFormatError):
            continue
        return {name(out)} | {entry.value for _, _, entry in tree if entry and entry.value}
    return None
