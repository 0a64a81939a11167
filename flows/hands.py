"""Prefect as a coordinator's hands: workers anywhere by deployments, or threads of this very process."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from flows.core.hands import OVER, Seen, Stand, Ticket
from flows.core.repository import Unreachable
from flows.core.work import Work
from flows.job import heard
from flows.showing import HOST
from stages.core.running.errors import Refusal

DEPLOYMENTS = {"gpu": "job/gpu", "cpu": "job/cpu"}
PAGE = 200  # what Prefect's server gives at once
STUCK = timedelta(minutes=5)  # in which a worker that took a run has its process running, or is no more
INVALID = (409, 422)  # answers to parameters that a deployment does not take
STANDS = {
    StateType.SCHEDULED: Stand.WAITING,
    StateType.PENDING: Stand.WAITING,
    StateType.PAUSED: Stand.WAITING,
    StateType.RUNNING: Stand.RUNNING,
    StateType.CANCELLING: Stand.RUNNING,
    StateType.COMPLETED: Stand.ENDED,
    StateType.FAILED: Stand.FAILED,
    StateType.CRASHED: Stand.LOST,
    StateType.CANCELLED: Stand.CANCELLED,
}


class Deployed:
    """Workers of a cluster. The server names a job's run by its attempt, so that all who ask share it."""

    def __init__(self, tags: Sequence[str], queue: str | None) -> None:
        self._tags, self._queue = list(tags), queue

    def ask(self, work: Work, name: str, pool: str) -> Ticket:
        with _answering():
            try:
                run = run_deployment(
                    DEPLOYMENTS[pool],
                    parameters={"work": work.model_dump(mode="json")},
                    timeout=0,
                    flow_run_name=work.title,
                    idempotency_key=name,
                    tags=self._tags,
                    work_queue_name=self._queue,
                )
            except ObjectNotFound as error:
                raise Refusal(f"Prefect has no deployment {DEPLOYMENTS[pool]}: `prefect deploy --all`") from error
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in INVALID:
                    raise
                raise Refusal(
                    f"{DEPLOYMENTS[pool]} is of another version: `prefect --no-prompt deploy --all`"
                ) from error
        assert isinstance(run, FlowRun)  # noqa: S101 - it is a coroutine where nobody waits
        return Ticket(str(run.id), _seen(run))

    def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        found: dict[str, Seen] = {}
        with _answering(), get_client(sync_client=True) as client:
            wanted_ids = [UUID(one) for one in ids]
            for begin in range(0, len(wanted_ids), PAGE):
                wanted = FlowRunFilter(id=FlowRunFilterId(any_=wanted_ids[begin : begin + PAGE]))
                for run in client.read_flow_runs(flow_run_filter=wanted, limit=PAGE):
                    if _is_stuck(run):
                        reason = "its worker took it and never began"
                        client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
                        found[str(run.id)] = Seen(Stand.LOST, reason)
                    else:
                        found[str(run.id)] = _seen(run)
        return found

    def cancel(self, ids: Collection[str]) -> None:
        with _answering(), get_client(sync_client=True) as client:
            for one in ids:
                client.set_flow_run_state(UUID(one), Cancelling())


def cancel_tagged(tag: str) -> int:
    """Runs that were asked for with a tag and are not over; how many."""
    ended = 0
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
        offset = 0
        while page := client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset):
            for run in page:
                if run.state is not None and STANDS[run.state.type] not in OVER:
                    client.set_flow_run_state(run.id, Cancelling())
                    ended += 1
            offset += PAGE
    return ended


class Here:
    """Threads of this process, some at once, each with a number that tells it from the others."""

    def __init__(self, slots: int, perform: Callable[[Work, int], State]) -> None:
        self._perform = perform
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._seen: dict[str, Seen] = {}

    def ask(self, work: Work, name: str, pool: str) -> Ticket:
        with self._changed:
            if name not in self._seen:
                self._seen[name] = Seen(Stand.WAITING)
                threading.Thread(target=self._work, args=(work, name), daemon=True).start()
            return Ticket(name, self._seen[name])

    def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        with self._changed:
            return {one: self._seen[one] for one in ids}

    def cancel(self, ids: Collection[str]) -> None:
        """They end with this process."""

    def _work(self, work: Work, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = self._free.pop(0)
            self._seen[name] = Seen(Stand.RUNNING)
        seen = Seen(Stand.LOST, "it ended without a word")
        try:
            state = self._perform(work, slot)
            seen = Seen(STANDS[state.type], *heard(state.message or ""))
        finally:
            with self._changed:
                self._seen[name] = seen
                self._free.append(slot)
                self._changed.notify_all()


def _seen(run: FlowRun) -> Seen:
    if run.state is None:
        return Seen(Stand.WAITING)
    if run.state.is_cancelled():  # Prefect says that this went well, which is no reason
        return Seen(Stand.CANCELLED)
    reason, host = heard(run.state.message or "")
    return Seen(STANDS[run.state.type], reason, host or str(run.labels.get(HOST, "")))


def _is_stuck(run: FlowRun) -> bool:
    state = run.state
    return state is not None and state.type is StateType.PENDING and datetime.now(UTC) - state.timestamp > STUCK


@contextmanager
def _answering() -> Iterator[None]:
    """A server that is away for a while is no reason to end: what runs goes on without it."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code < 500:
            raise
        raise Unreachable(f"Prefect's server answers {error.response.status_code}") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"Prefect's server does not answer ({type(error).__name__})") from error
