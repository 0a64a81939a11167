"""A job on its host: a clone at the start commit, the stages, their data to the DVC remote, their result to git.

Data goes before refs, and refs are only ever created, so that whatever is seen is whole, and a late twin changes
nothing.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

from flows.core import leash
from flows.core.order import FAILED, Order, Outcome
from flows.core.repository import Repository, Unreachable
from flows.core.work import Work
from lightvision.host import Host, take
from stages.core.running import messenger, sources
from stages.core.running.errors import Refusal

Answer = TypeVar("Answer")
Tell = Callable[[str], None]

PATIENCE = "LIGHTVISION_PATIENCE"  # seconds for which a remote or a repository may be away
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
FLUSH = 60.0  # seconds for MLflow, which may fail nothing
KILLED = 128  # a shell adds the signal's number
OF_THE_HOST = (  # what a stage says when it is its machine that fails
    "No space left on device",
    "Disk quota exceeded",
    "Input/output error",
    "Cannot allocate memory",
    "Stale file handle",
    "CUDA error",
    "CUDA driver",
)


class StageFailed(Exception):
    """The stage itself said no, and would say so again."""


class HostTrouble(Exception):
    """Disk, network, a spoilt object, a kill: somebody else may have more luck.

    `corrupt PATH` is an input that the remote lacks, or had otherwise than dvc.lock says: its maker must run again.
    """


def carry_out(work: Work, tell: Tell) -> str:
    """The commit that now stands at the work's target; calling it again, anywhere, gives the same one."""
    host = Host.here()
    if host.is_full():
        raise HostTrouble(f"{host.free() / 1e9:.1f} GB free in {host.folder}")
    try:
        repository = patiently(lambda: Repository.open(work.repository, host.mirror(work.repository)), tell)
        there = patiently(lambda: repository.refs(work.target), tell)
        if there:
            return there[work.target]
        with clone(host, repository, work, tell) as (folder, lock):
            outcome, last = reproduce(host, work, folder, lock, tell)
            sha = _keep(repository, work, folder, outcome, tell) if outcome.finished else ""
        flush(home(host, work))
    except OSError as error:
        raise HostTrouble(f"{error.strerror or error}: {error.filename or host.folder}") from error
    except Refusal as error:
        raise HostTrouble(str(error)) from error
    if outcome.trouble:
        raise HostTrouble(outcome.trouble)
    if outcome.failed:
        raise _failure(outcome, last)
    return sha


def project(work: Work) -> Path | None:
    """The checkout that a person works in, where the repository is one: its cache and journals are used then."""
    path = Path(work.repository).expanduser()
    return path.resolve() if (path / ".dvc").is_dir() else None


def home(host: Host, work: Work) -> Path:
    local = project(work)
    return local / ".lightvision" if local else host.home


@contextmanager
def clone(host: Host, repository: Repository, work: Work, tell: Tell) -> Iterator[tuple[Path, int]]:
    """A folder of its own, gone afterwards, with a file that is locked while anybody is at work in it."""
    began = time.monotonic()
    fetch(repository, work, tell)
    place = host.jobs / (os.environ.get("LIGHTVISION_FLOW_RUN") or uuid4().hex)
    with FileLock(host.lock("jobs")):
        sweep(host)
        place.mkdir(parents=True, exist_ok=True)
        lock = take(place / "lock")
    if lock is None:
        raise HostTrouble(f"{place} is another process's")
    folder = place / "clone"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _git("clone", "--quiet", "--shared", "--no-checkout", str(repository.folder), str(folder))
        _git("-C", str(folder), "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", work.start)
        tell(f"clone: {time.monotonic() - began:.1f} s")
        yield folder, lock
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def fetch(repository: Repository, work: Work, tell: Tell) -> None:
    if not _has(repository, work.start):
        patiently(lambda: repository.fetch(work.start_ref), tell)
    if not _has(repository, work.start):
        raise HostTrouble(f"{work.start_ref} is not {work.start[:12]} in {work.repository}: nobody wants it any more")


def sweep(host: Host) -> None:
    """Clones of jobs that were killed."""
    for place in host.jobs.glob("*"):
        lock = take(place / "lock")
        if lock is not None:
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)


def reproduce(host: Host, work: Work, folder: Path, lock: int, tell: Tell) -> tuple[Outcome, str]:
    """What became of the stages, and the last word of the one that failed."""
    order = folder.parent / "order"
    content = Order(stages=work.stages, cache=host.cache, state=host.folder, project=project(work), patience=patience())
    order.write_text(content.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "flows.core.reproducing", str(order)]
    last = word = ""
    with leash.leashed(command, folder, _environment(host, work, folder), [lock]) as process:
        for line in filter(None, map(str.rstrip, process.stdout or ())):
            if line.startswith(FAILED):
                word = last
            else:
                tell(line)
                last = line
        status = process.wait()
    written = order.with_suffix(".outcome")
    if not written.exists():
        number = -status if status < 0 else status - KILLED
        raise HostTrouble(f"DVC was ended by signal {number}" if number > 0 else f"DVC: {last}")
    return Outcome.model_validate_json(written.read_text(encoding="utf-8")), word


def _environment(host: Host, work: Work, folder: Path) -> Mapping[str, str]:
    """This project's own modules, whatever the clone has; the programs of this environment before others."""
    path = os.environ.get("PATH", os.defpath)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(sources.ROOT), os.environ.get("PYTHONPATH")))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), path)),
        "PYTHONUNBUFFERED": "1",
        "LIGHTVISION_HOME": os.environ.get("LIGHTVISION_HOME") or str(home(host, work)),
        "LIGHTVISION_COMMIT": work.baseline,
        "DVC_EXP_NAME": work.experiment,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
    }


def _keep(repository: Repository, work: Work, folder: Path, outcome: Outcome, tell: Tell) -> str:
    """The result as a child of the start; whoever was first stays."""
    began = time.monotonic()
    changes = {path: (folder / path).read_bytes() for path in ("dvc.lock", *outcome.files)}
    trailers = {
        "Stages": " ".join(outcome.finished),
        "Host": platform.node(),
        "Flow-run": os.environ.get("LIGHTVISION_FLOW_RUN", ""),
    }
    told = "\n".join(f"{name}: {value}" for name, value in trailers.items() if value)
    sha = repository.commit(work.start, [work.start], changes, f"{work.title}\n\n{told}\n", int(time.time()))
    if not patiently(lambda: repository.create({work.target: sha}), tell)[work.target]:
        sha = patiently(lambda: repository.refs(work.target), tell)[work.target]
        tell(f"another job was first: {sha[:12]}")
    tell(f"git: {time.monotonic() - began:.1f} s")
    return sha


def _failure(outcome: Outcome, last: str) -> Exception:
    status = outcome.status or 0
    if status < 0 or status > KILLED:
        return HostTrouble(f"{outcome.failed}: ended by signal {-status if status < 0 else status - KILLED}")
    said = last.removeprefix(f"{outcome.failed}: ")
    if status == os.EX_TEMPFAIL or any(word in last for word in OF_THE_HOST):
        return HostTrouble(f"{outcome.failed}: {said}")
    return StageFailed(f"{outcome.failed}: {said}")


def flush(home: Path) -> None:
    """Journals that nobody sends yet are sent; a forwarder that lingers has them already."""
    if not messenger.wanted() or not any(home.glob("runs/*")):
        return
    with suppress(Timeout):
        FileLock(home / "forwarding.lock").acquire(timeout=0).lock.release()
        environment = os.environ | {"LIGHTVISION_HOME": str(home)}
        with suppress(subprocess.TimeoutExpired):
            command = [sys.executable, *messenger.COMMAND.split()[1:]]
            subprocess.run(command, cwd=sources.ROOT, env=environment, capture_output=True, timeout=FLUSH, check=False)


def patience() -> float:
    return float(os.environ.get(PATIENCE) or 600)


def patiently(ask: Callable[[], Answer], tell: Tell) -> Answer:
    """A server that is away comes back."""
    end, pause = time.monotonic() + patience(), FIRST_PAUSE
    while True:
        try:
            return ask()
        except Unreachable as error:
            if time.monotonic() + pause > end:
                raise HostTrouble(str(error)) from error
            tell(f"{error}: next try in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _has(repository: Repository, rev: str) -> bool:
    command = ["git", "-C", str(repository.folder), "cat-file", "-e", f"{rev}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostTrouble(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
