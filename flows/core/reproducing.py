"""DVC's part of a job, in one process, since importing DVC costs more than its work.

    python -m flows.core.reproducing ORDER      in a clone; ORDER is a file, and so is what it leaves: Outcome

Everything is taken from this host's cache or the remote, verified; whatever was finished is sent to the remote.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.state import State
from dvc_objects.errors import ObjectFormatError

from flows.core import remote
from flows.core.order import FAILED, Order, Outcome

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.stage import Stage
    from dvc_data.hashfile.db import HashFileDB

STATUS = re.compile(r", exited with (-?\d+)$")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
ROUNDS = 2  # the second one after wrong objects were taken out of the cache


class Trouble(Exception):
    """Of this host, of the network or of the remote, and not of the stages."""


def carry_out(order: Order) -> Outcome:
    outcome = Outcome()
    settings: dict[str, Any] = {"cache": {"dir": str(order.cache)}}
    if order.project:
        settings = Config(str(order.project / ".dvc"))
        settings["cache"]["dir"] = Repo(str(order.project)).cache.local.path
    settings = {**settings, "core": {**settings.get("core", {}), "autostage": False, "check_update": False}}
    with Repo(config=settings) as repo:
        repo.scm_context.quiet = True
        name = repo.config["core"].get("remote")
        if not name and not order.project:
            outcome.trouble = "the project has no default DVC remote, by which hosts could share data"
            return outcome
        asked = [stage for stage in repo.index.stages if getattr(stage, "name", "") in order.stages]
        try:
            _timed("data", lambda: _bring(repo, asked, order))
            for stage in order.stages:
                if not _run(repo, stage, outcome):
                    break
            if name and outcome.finished:
                _timed("push", lambda: _patiently(lambda: _push(repo, outcome), order.patience))
        except (Trouble, OSError) as trouble:
            outcome.trouble = str(trouble)
        done = [stage for stage in repo.index.stages if getattr(stage, "name", "") in outcome.finished]
        outcome.files = [file for stage in done for out in stage.outs if not out.use_cache for file in _files(out)]
    return outcome


def _bring(repo: Repo, asked: Sequence["Stage"], order: Order) -> None:
    """What these stages read that other stages made, each object hashed once on this host.

    DVC's own `verify` trusts whatever is write-protected, and trusts a cache that another job has just filled.
    """
    read = [dep.fs_path for stage in asked for dep in stage.deps]
    others = (out for stage in repo.index.stages if stage not in asked for out in remote.kept(stage.outs))
    needed = [out for out in others if any(_overlap(out.fs_path, path) for path in read)]
    if not needed:
        return
    store = repo.cloud.get_remote_odb() if repo.config["core"].get("remote") else None
    with closing(State(str(order.cache), str(order.state))) as hashes:
        for _ in range(ROUNDS):
            if store is not None:
                _patiently(lambda: _fetch(repo, needed), order.patience)
            suspects = list(_suspects(needed, repo.cache.local, store, hashes))
            if not suspects:
                repo.checkout(targets=[out.fs_path for out in needed], force=True)
                return
            for out, name in suspects:
                _judge(out, name, repo.cache.local, store)
    raise Trouble(f"corrupt {needed[0].def_path}")


def _fetch(repo: Repo, needed: Sequence["Output"]) -> None:
    """What the remote lacks, or has wrong, is found afterwards; only a remote that is away is worth another try."""
    try:
        repo.fetch(targets=[out.fs_path for out in needed])
    except ObjectFormatError:
        return
    except (DvcException, OSError):
        if not remote.lacking(repo, needed):
            raise


def _suspects(
    needed: Sequence["Output"], cache: "HashFileDB", store: "HashFileDB | None", hashes: State
) -> Iterator[tuple["Output", str]]:
    """Objects that the cache has not, or not as their names say."""
    stores = (cache,) if store is None else (cache, store)
    for out in needed:
        for name in remote.objects(out, *stores) or {remote.name(out)}:
            if not _is_right(cache, name, hashes):
                yield out, name


def _judge(out: "Output", name: str, cache: "HashFileDB", store: "HashFileDB | None") -> None:
    """Takes a wrong object away wherever it is: whoever makes it again can then put the right one there."""
    _remove(cache, name)
    if store is None or not _is_right(store, name):
        if store is not None:
            _remove(store, name)
        raise Trouble(f"corrupt {out.def_path}")


def _is_right(store: "HashFileDB", name: str, hashes: State | None = None) -> bool:
    try:
        _, found = hash_file(store.oid_to_path(name), store.fs, "md5", hashes)
    except FileNotFoundError:
        return False
    return (found.value or "").partition(".")[0] == name.partition(".")[0]


def _remove(store: "HashFileDB", name: str) -> None:
    with suppress(FileNotFoundError):
        store.fs.remove(store.oid_to_path(name))


def _push(repo: Repo, outcome: Outcome) -> None:
    """DVC takes it that where a folder's list lies, its files do, too; and cannot read a list that is spoilt."""
    done = [stage for stage in repo.index.stages if getattr(stage, "name", "") in outcome.finished]
    outs = [out for stage in done for out in remote.kept(stage.outs)]
    with suppress(ObjectFormatError):
        repo.push(targets=outcome.finished)
    if remote.lacking(repo, outs):
        for out in outs:
            _remove(repo.cloud.get_remote_odb(), remote.name(out))
        repo.push(targets=outcome.finished)


def _run(repo: Repo, stage: str, outcome: Outcome) -> bool:
    try:
        repo.reproduce(stage, single_item=True)  # pyright: ignore[reportArgumentType]
    except DvcException as error:
        outcome.failed = stage
        causes = list(_causes(error))
        statuses = [int(found[1]) for cause in causes if (found := STATUS.search(str(cause)))]
        trouble = next((cause for cause in causes if isinstance(cause, OSError)), None)
        if statuses:
            outcome.status = statuses[0]
        elif trouble:
            outcome.trouble = f"{trouble.strerror or trouble}: {trouble.filename or stage}"
        else:
            print(f"{stage}: {error.__cause__ or error}", flush=True)
        print(FAILED + stage, flush=True)
        return False
    outcome.finished.append(stage)
    return True


def _patiently(work: Callable[[], object], patience: float) -> None:
    """A network that is away comes back."""
    end, pause = time.monotonic() + patience, FIRST_PAUSE
    while True:
        try:
            work()
        except (DvcException, OSError) as error:
            if time.monotonic() + pause > end:
                raise Trouble(f"the DVC remote: {error}") from error
            print(f"{error}: next try in {pause:.0f} s", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            return


def _timed(what: str, work: Callable[[], object]) -> None:
    began = time.monotonic()
    work()
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


def _files(out: "Output") -> Iterator[str]:
    path = Path(out.fs_path)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            yield file.relative_to(Path.cwd()).as_posix()


def _overlap(one: str, other: str) -> bool:
    first, second = Path(one), Path(other)
    return first == second or first in second.parents or second in first.parents


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def main() -> None:
    path = Path(sys.argv[1])
    outcome = carry_out(Order.model_validate_json(path.read_text()))
    path.with_suffix(".outcome").write_text(outcome.model_dump_json())


if __name__ == "__main__":
    main()
