"""What a person types: the same sweep on this machine, or on a cluster."""

import argparse
import contextvars
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from flows import coordinating, leaderboard, watch
from flows.coordinating import Order, Site
from flows.core.coordinator import Rules
from flows.core.promoting import EXPERIMENTS
from flows.core.repository import Repository
from flows.core.work import Wish, Work
from flows.hands import Here
from flows.job import job
from flows.setup import QUEUES
from lightvision import experiments, gathering
from lightvision.attempts import DIGITS
from lightvision.gathering import Compare, Plan
from lightvision.host import Host
from lightvision.points import Point
from stages.core import words
from stages.core.running.errors import Refusal

SERVER_START = 120  # seconds; its first start, on a cold disk, takes longer than Prefect's 20


def run(parser: argparse.ArgumentParser, plan: Callable[..., tuple[Plan, Compare]]) -> int:
    """A plan carried out as `lightvision` would, but by coordinator and workers."""
    parser.add_argument("--slots", type=int, default=1, help="jobs at once on this machine")
    parser.add_argument(
        "--ahead", type=int, metavar="N", help=f"jobs asked of a cluster at once, {Rules.ahead} if not given"
    )
    add_cluster(parser)
    asked = vars(parser.parse_args())
    slots, ahead, on_cluster = (asked.pop(name) for name in ("slots", "ahead", "cluster"))
    detach, queue = asked.pop("detach"), asked.pop("queue")
    dry = asked.pop("dry")
    try:
        if slots < 1:
            raise Refusal("--slots counts from 1")
        if not on_cluster and (detach or queue or ahead is not None):
            raise Refusal("--ahead, --detach and --queue are for --cluster")
        if ahead is not None and ahead < 1:
            raise Refusal("--ahead counts from 1")
        attempt = (
            partial(_on_cluster, ahead or Rules.ahead, queue, detach)
            if on_cluster
            else partial(_on_this_machine, slots)
        )
        planned, compare = plan(**asked)
        if on_cluster:
            bring(planned.name)
        return gathering.carry_out(planned, compare, dry, attempt)
    except Refusal as refusal:
        sys.exit(f"{parser.prog.rpartition('.')[2]}: {' '.join(str(refusal).split())}")


def own_server() -> AbstractContextManager[object]:
    """Prefect's, where there is no other: its SQLite has no time for counting who uses it."""
    wanted = {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SERVER_START, PREFECT_SERVER_ANALYTICS_ENABLED: False}
    return temporary_settings({**wanted})


def add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", action="store_true", help="on the workers of the server at PREFECT_API_URL")
    parser.add_argument("--detach", action="store_true", help="do not wait for the cluster")
    parser.add_argument("--queue", choices=QUEUES, help="of the cluster's pools")


# ------------------------------------------------------------------------------------------------ on this machine


def _on_this_machine(slots: int, name: str, missing: Sequence[Point], targets: Sequence[str]) -> dict[str, str]:
    if not missing:
        return {}
    with own_server():
        reasons = here.with_options(flow_run_name=name)(name, _wishes(missing), list(targets), slots)
    return _by_digest(missing, reasons)


@flow(name="sweep on one machine")
def here(name: str, points: list[Wish], targets: list[str], slots: int) -> dict[str, str]:
    """Why points failed."""
    return coordinating.failed(coordinating.coordinate(Order(name, points, targets), this_machine(slots)))


def this_machine(slots: int) -> Site:
    """Within a flow; the commit is that of the folder where one works."""
    root = str(Path.cwd())
    repository = Repository.open(root, Host.here().mirror(root))
    rev = coordinating.commit(repository, experiments.head())
    return Site(repository, root, rev, Here(slots, _perform()), absent=lambda rev, stages: ())


def _perform() -> Callable[[Work, int], State]:
    """A job's run in a thread belongs to this flow's run."""
    context = contextvars.copy_context()

    def perform(work: Work, slot: int) -> State:
        return context.copy().run(job, work, return_state=True)

    return perform


# ---------------------------------------------------------------------------------------------------- on a cluster


def _on_cluster(
    ahead: int, queue: str | None, detach: bool, name: str, missing: Sequence[Point], targets: Sequence[str]
) -> dict[str, str]:
    if not missing:
        return {}
    address = origin()
    parameters: dict[str, Any] = {
        "name": name,
        "rev": experiments.head(),
        "points": [wish.model_dump(mode="json") for wish in _wishes(missing)],
        "targets": list(targets),
        "ahead": ahead,
        "repository": address,
        "queue": queue,
    }
    run = submit("sweep/cluster", name, parameters)
    print(f"{name}: {watch.link(run.id)}", flush=True)
    if detach:
        print(f"`python -m flows.watch {name}` follows it; afterwards the same command gathers it")
        sys.exit(0)
    watch.follow(run.id, name)
    bring(name)
    return _by_digest(missing, dict(leaderboard.reasons(run.id)))


def submit(deployment: str, name: str, parameters: dict[str, Any]) -> FlowRun:
    if not PREFECT_API_URL.value():
        raise Refusal("which cluster? Set PREFECT_API_URL, or `prefect config set PREFECT_API_URL=...`")
    try:
        run = run_deployment(
            deployment,
            parameters=parameters,
            timeout=0,
            flow_run_name=name,
            tags=["lightvision", f"sweep:{name}"],
            as_subflow=False,
        )
    except ObjectNotFound as error:
        raise Refusal(f"Prefect has no deployment {deployment}: `prefect deploy --all` from the project") from error
    except httpx.HTTPError as error:
        raise Refusal(watch.trouble(error)) from error
    assert isinstance(run, FlowRun)  # noqa: S101 - it is a coroutine where nobody waits
    return run


def origin(branch: str = "") -> str:
    """Its address; workers fetch what is there, not what is here."""
    address = _git("remote", "get-url", "origin")
    if not address:
        raise Refusal("the project has no git remote `origin`, so that workers could not fetch it")
    if not _git("branch", "--remotes", "--contains", "HEAD", "--list", f"origin/{branch or '*'}"):
        place = f"origin/{branch}" if branch else "origin"
        raise Refusal(f"HEAD is not in `{place}` yet: `git push` first, workers fetch it from there")
    return address


def refuse_edited() -> None:
    """Workers would run without it, and a pull would not put the result over it."""
    if edited := _git("diff", "--name-only", "HEAD").splitlines():
        raise Refusal(f"commit and push {words.listed(edited[: gathering.LISTED])} first: workers fetch it from git")


def bring(name: str) -> None:
    """Experiments of this commit that were made elsewhere for a sweep of this name."""
    head = experiments.head()
    place = f"{EXPERIMENTS}/{head[:2]}/{head[2:]}/{name}-*"
    _git("fetch", "--quiet", "origin", f"{place}:{place}")


def branch() -> str:
    name = _git("branch", "--show-current")
    if not name:
        raise Refusal("no branch is checked out here, and a pipeline's result goes on one: `git switch main`")
    return name


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()


def _wishes(points: Sequence[Point]) -> list[Wish]:
    return [Wish(row=point.row, seed=point.seed, fold=point.fold, sets=point.sets) for point in points]


def _by_digest(points: Sequence[Point], reasons: dict[str, str]) -> dict[str, str]:
    """Experiments' names end with the first digits of their points' digests."""
    return {
        point.digest: reason
        for name, reason in reasons.items()
        for point in points
        if name.endswith(point.digest[:DIGITS])
    }
