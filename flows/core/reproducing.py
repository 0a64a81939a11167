"""DVC's part of a job, in one process, since importing DVC costs more than its work.

    python -m flows.core.reproducing ORDER      in a clone; ORDER is a file, and so is what it leaves: Outcome

Everything is taken from this host's cache or the remote, verified; whatever was finished is sent to the remote.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_objects.errors import ObjectFormatError

from flows.core import remote
from flows.core.order import Order, Outcome

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.stage import Stage

STATUS = re.compile(r", exited with (-?\d+)$")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds


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
        name = repo.config["core"].get("remote")
        if name:
            repo.config["remote"][name]["verify"] = True
        elif not order.project:
            outcome.trouble = "the project has no default DVC remote, by which hosts could share data"
            return outcome
        asked = [stage for stage in repo.index.stages if getattr(stage, "name", "") in order.stages]
        try:
            _timed("data", lambda: _bring(repo, asked, order.patience if name else 0))
            for stage in order.stages:
                if not _run(repo, stage, outcome):
                    break
            if name and outcome.finished:
                push = lambda: repo.push(targets=outcome.finished)  # noqa: E731
                _timed("push", lambda: _patiently(push, order.patience))
        except (Trouble, OSError) as trouble:
            outcome.trouble = str(trouble)
        done = [stage for stage in repo.index.stages if getattr(stage, "name", "") in outcome.finished]
        outcome.files = [file for stage in done for out in stage.outs if not out.use_cache for file in _files(out)]
    return outcome


def _bring(repo: Repo, asked: Sequence["Stage"], patience: float) -> None:
    """What these stages read that other stages made."""
    read = [dep.fs_path for stage in asked for dep in stage.deps]
    others = (out for stage in repo.index.stages if stage not in asked for out in remote.kept(stage.outs))
    needed = [out for out in others if any(_overlap(out.fs_path, path) for path in read)]
    targets = [out.fs_path for out in needed]
    if not targets:
        return

    def fetch() -> None:
        try:
            repo.fetch(targets=targets)
        except (DvcException, ObjectFormatError, OSError):
            _look_closer(repo, needed)
            raise
        _look_closer(repo, needed)

    _patiently(fetch, patience)
    repo.checkout(targets=targets, force=True)


def _look_closer(repo: Repo, needed: Sequence["Output"]) -> None:
    """What is not in the cache after it was fetched is not in the remote, or is not there what its name says.

    Such an object is taken out of the remote: whoever makes it again can then put the right one there.
    """
    cache = repo.cache.local
    for out in needed:
        names = remote.objects(out, cache)
        absent = {remote.name(out)} if names is None else {one for one in names if not cache.exists(one)}
        if not absent:
            continue
        store = repo.cloud.get_remote_odb()
        for one in sorted(absent):
            try:
                store.check(one, check_hash=True)  # removes what is not what it should be
            except (ObjectFormatError, FileNotFoundError):
                raise Trouble(f"corrupt {out.def_path}") from None


def _run(repo: Repo, stage: str, outcome: Outcome) -> bool:
    try:
        repo.reproduce(stage, single_item=True)  # pyright: ignore[reportArgumentType]
    except DvcException as error:
        outcome.failed = stage
        for cause in _causes(error):
            found = STATUS.search(str(cause))
            if found:
                outcome.status = int(found[1])
                return False
            if isinstance(cause, OSError):
                outcome.trouble = f"{cause.strerror or cause}: {cause.filename or stage}"
                return False
        print(f"{stage}: {error.__cause__ or error}", flush=True)
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
