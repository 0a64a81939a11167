"""A coordinator as Prefect runs it: in a cluster, by deployments; on one machine, in this process."""

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from dvc.exceptions import DvcException
from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Failed

from flows.core import planning, promoting, remote, tidying, truth
from flows.core.coordinator import Coordinator, Fate, Rules
from flows.core.hands import Hands
from flows.core.ledger import Ledger
from flows.core.repository import Repository, Unreachable
from flows.core.work import Wish
from flows.hands import Deployed, cancel_tagged
from flows.leaderboard import Leaderboard
from lightvision.host import Host
from stages.core.running.errors import Refusal

REPOSITORY = "LIGHTVISION_REPOSITORY"
POLL = 2.0  # seconds
Answer = TypeVar("Answer")
Asked = ParamSpec("Asked")


class Incomplete(Exception):
    """Some of what was asked for did not come about."""


def in_words(flow: Callable[Asked, Answer]) -> Callable[Asked, Answer | State]:
    """What a person can mend, or what stages said, is the state of a run; a traceback would hide it."""

    @wraps(flow)
    def told(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer | State:
        try:
            return flow(*args, **kwargs)
        except (Refusal, Incomplete) as reason:
            return Failed(message=" ".join(str(reason).split()))

    return told


@dataclass(frozen=True)
class Order:
    """What is to be done at which commit; `targets` are the last stages, all that they need runs too."""

    name: str
    wishes: Sequence[Wish]
    targets: Sequence[str]
    ahead: int = Rules.ahead
    branch: str = ""  # that goes on with the result; else points become experiments


@dataclass(frozen=True)
class Site:
    """Where it is done: `reach` is git's address for those who work."""

    repository: Repository
    reach: str
    rev: str
    hands: Hands
    absent: Callable[[str, Collection[str]], Sequence[str]]  # outs of stages of a commit that others could not have


def _absent(repository: Repository, rev: str, stages: Collection[str]) -> Sequence[str]:
    try:
        return remote.missing_at(repository, rev, stages)
    except (DvcException, OSError) as error:
        raise Unreachable(f"DVC's remote does not answer ({error})") from error


def cluster(repository: str, rev: str, name: str, queue: str | None) -> Site:
    """Of a flow run: its jobs bear its tag, so that they end with it when it is cancelled."""
    reach = repository or os.environ.get(REPOSITORY, "")
    if not reach:
        raise Refusal(f"which repository? Set {REPOSITORY} where coordinators run, or the flow's parameter")
    opened = Repository.open(reach, Host.here().mirror(reach))
    context = FlowRunContext.get()
    asking = [asked_by(context.flow_run.id)] if context and context.flow_run else []
    hands = Deployed(["lightvision", f"sweep:{name}", *asking], queue)
    return Site(opened, reach, commit(opened, rev), hands, partial(_absent, opened))


def asked_by(run: UUID | str) -> str:
    return f"asked-by:{run}"


def end_jobs(flow: Any, flow_run: Any, state: Any) -> None:
    """A coordinator that is cancelled takes its jobs with it; one that crashes does not: another goes on with them."""
    cancel_tagged(asked_by(flow_run.id))


def commit(repository: Repository, rev: str) -> str:
    repository.fetch("refs/heads/*", "refs/tags/*")
    for name in (f"refs/heads/{rev}", f"refs/tags/{rev}", rev):
        command = ["git", "-C", str(repository.folder), "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"]
        found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        if found:
            return found
    raise Refusal(f"{repository.url} has no branch, tag or commit {rev}: push it first")


def at(site: Site, read: Callable[[], Answer]) -> Answer:
    """Something that reads the project's files, as its commit has them."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(site.repository.folder), "archive", site.rev], capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        with contextlib.chdir(folder):
            return read()


def coordinate(order: Order, site: Site) -> Coordinator:
    """Until every point is an experiment, or it is known why it will not be one."""
    board = Leaderboard(order.name)
    targets = list(order.targets) or list(truth.stages(site.repository, site.rev))
    asked = planning.expand(site.repository, site.rev, order.name, order.wishes, targets)
    coordinator = begin(order, site)
    coordinator.add(asked)
    while coordinator.step():
        board.show(coordinator)
        time.sleep(POLL)
    board.show(coordinator, last=True)
    with contextlib.suppress(Unreachable):
        tidying.tidy(site.repository, time.time())
    return coordinator


def begin(order: Order, site: Site) -> Coordinator:
    """It knows what is done, and has nothing to do yet."""
    ledger = Ledger(site.repository, site.rev)
    coordinator = Coordinator(
        ledger,
        site.hands,
        promoting.branch(ledger, order.branch) if order.branch else promoting.experiments(ledger),
        name=order.name,
        reach=site.reach,
        rules=Rules(ahead=order.ahead),
        apart=bool(order.branch),
        tell=get_run_logger().info,
        lacking=site.absent,
    )
    coordinator.recall()
    return coordinator


def failed(coordinator: Coordinator) -> dict[str, str]:
    return {name: point.reason for name, point in coordinator.points.items() if point.fate is Fate.FAILED}


def conclude(coordinator: Coordinator) -> Mapping[str, str]:
    """Names of experiments with their commits; an error if there are fewer than were asked for."""
    if wrong := failed(coordinator):
        name, reason = next(iter(wrong.items()))
        raise Incomplete(f"{len(wrong)} of {len(coordinator.points)} points failed; {name}: {reason}")
    return {name: point.rev for name, point in coordinator.points.items()}
