"""A sweep on a cluster, as a terminal shows it, from any machine that reaches Prefect's server.

python -m flows.watch           sweeps there were lately
python -m flows.watch NAME      one of them, until it ends, with its exit status; Ctrl-C leaves it running
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TypeVar
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import Artifact, FlowRun, State, StateType
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_UI_URL,
    temporary_settings,
)
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows import leaderboard, viewing
from flows.coordinating import asked_by
from flows.core import standings
from flows.core.standings import Group, Summary
from flows.showing import HOST
from flows.viewing import AtWork, View
from stages.core.running.errors import Refusal

COORDINATOR = "lightvision-coordinator"  # the tag that prefect.yaml gives them
POLL = 3.0
PAGE = 200  # what Prefect's server gives at once
LISTED = 20
ANEW = 90.0  # seconds in which a coordinator that crashed is started again (deploy/automations.yaml)
PREFIX = re.compile(r"Flow run encountered an exception: (\w+: )?")
INTERRUPTED = 130  # exit status of what Ctrl-C ended
Answer = TypeVar("Answer")


def link(run: UUID) -> str:
    return f"{PREFECT_UI_URL.value()}/runs/flow-run/{run}"


def follow(run: UUID, name: str) -> bool:
    """Until the coordinator's run is over; whether it completed."""
    console = Console()
    try:
        view = _live(console, run, name) if console.is_terminal else _lines(console, run, name)
    except KeyboardInterrupt:
        print(f"\n{name} goes on without you; `prefect flow-run cancel {run}` ends it")
        sys.exit(INTERRUPTED)
    if console.is_terminal:
        console.print(Text(f"{view.line}\n{view.message}".strip()))
    return view.completed


def _live(console: Console, run: UUID, name: str) -> View:
    view = View(name)
    with Live(viewing.drawn(view), console=console, auto_refresh=False) as live:
        for view in views(run, name):
            live.update(viewing.drawn(view), refresh=True)
    return view


def _lines(console: Console, run: UUID, name: str) -> View:
    view, line = View(name), ""
    for view in views(run, name):
        if view.line != line:
            print(view.line, flush=True)
            line = view.line
    if view.message:
        print(view.message, flush=True)
    return view


# ---------------------------------------------------------------------------------------------- asking the server


def views(run: UUID, name: str) -> Iterator[View]:
    """One after the other until the run is over; a server that is away for a while ends nothing."""
    view = View(name)
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        while not view.over:
            try:
                view = _look(client, run, name)
            except httpx.HTTPError as error:
                view = replace(view, trouble=f"{trouble(error)}, trying again")
            except ObjectNotFound as error:
                raise Refusal(f"Prefect's server knows no run {run} any more") from error
            yield view
            if not view.over:
                time.sleep(POLL)


def trouble(error: httpx.HTTPError) -> str:
    """Who is not let in will not be let in later either."""
    if not isinstance(error, httpx.HTTPStatusError):
        return f"Prefect's server at {PREFECT_API_URL.value()} does not answer"
    status = error.response.status_code
    if status in (401, 403):
        raise Refusal(f"Prefect's server answers {status}: set PREFECT_API_AUTH_STRING as it has it") from error
    if status < 500:
        raise error
    return f"Prefect's server answers {status}"


def _look(client: SyncPrefectClient, run: UUID, name: str) -> View:
    state = client.read_flow_run(run).state
    over = _is_over(state)
    board = leaderboard.newest(client, run, leaderboard.TABLE)
    return View(
        name,
        state=_named(state),
        message=PREFIX.sub("", (state.message if state else "") or ""),
        link=link(run),
        summary=_summary(board, over),
        jobs=_jobs(client, run),
        best=[row for row in leaderboard.table(board) if row["state"] == Group.FINISHED],
        over=over,
        completed=state is not None and state.is_completed(),
    )


def _named(state: State | None) -> str:
    return (state.name or state.type.value).lower() if state else "unknown"


def _is_over(state: State | None) -> bool:
    return state is not None and state.is_final() and not _begins_anew(state)


def _summary(board: Artifact | None, over: bool) -> Summary:
    told = leaderboard.heard((board.metadata_ if board else None) or {})
    return told.at_rest if over else told


def _begins_anew(state: State) -> bool:
    return state.is_crashed() and (datetime.now(UTC) - state.timestamp).total_seconds() < ANEW


def _jobs(client: SyncPrefectClient, run: UUID) -> list[AtWork]:
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[asked_by(run)]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])),
    )
    runs = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_ASC, limit=PAGE)
    shown = _progress(client, [one.id for one in runs[: viewing.TOP]])
    return [_at_work(one, *shown.get(one.id, (None, ""))) for one in runs]


def _at_work(run: FlowRun, percent: float | None, told: str) -> AtWork:
    took = (datetime.now(UTC) - run.start_time).total_seconds() if run.start_time else 0.0
    return AtWork(
        title=run.name,
        host=str(run.labels.get(HOST, "")),
        attempt=(run.idempotency_key or "").rpartition("/")[2],
        percent=percent,
        told=told,
        took=standings.duration(max(took, 0.0)),
    )


def _progress(client: SyncPrefectClient, runs: Sequence[UUID]) -> dict[UUID, tuple[float, str]]:
    """The newest of each run, which is of the stage that it is at."""
    if not runs:
        return {}
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=list(runs)), type=ArtifactFilterType(any_=["progress"])
    )
    found: dict[UUID, tuple[float, str]] = {}
    for one in client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC):
        if one.flow_run_id and isinstance(one.data, int | float):
            found.setdefault(one.flow_run_id, (float(one.data), (one.description or "").partition("\n")[0]))
    return found


# -------------------------------------------------------------------------------------------------- what is typed


def recent(client: SyncPrefectClient) -> list[FlowRun]:
    """Coordinators, the newest first."""
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[COORDINATOR]))
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE)


def find(runs: Sequence[FlowRun], name: str) -> FlowRun:
    """The newest of a name; an ablation that was asked for in Prefect's UI bears that of its file."""
    for run in runs:
        if name in (run.name, PurePath(run.name).stem, str(run.id)):
            return run
    there = list(dict.fromkeys(run.name for run in runs))
    raise Refusal(f"Prefect knows no sweep {name}; it knows {', '.join(there[:LISTED]) or 'none at all'}")


def listed(client: SyncPrefectClient, runs: Sequence[FlowRun]) -> Table:
    table = Table(box=None)
    for column in ("sweep", "state", "began", "points"):
        table.add_column(column, overflow="fold")
    for run in runs[:LISTED]:
        board = leaderboard.newest(client, run.id, leaderboard.TABLE)
        began = run.start_time.astimezone().strftime("%Y-%m-%d %H:%M") if run.start_time else ""
        counts = _summary(board, _is_over(run.state)).counts if board else ""
        table.add_row(*map(Text, (run.name, _named(run.state), began, counts)))
    return table


def _reached(ask: Callable[[SyncPrefectClient], Answer]) -> Answer:
    """However long the server is away; it is said once."""
    said = ""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        while True:
            try:
                return ask(client)
            except httpx.HTTPError as error:
                told = f"{trouble(error)}, trying again"
            if told != said:
                print(told, file=sys.stderr, flush=True)
                said = told
            time.sleep(POLL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.watch", description="A sweep on a cluster, as it stands.")
    parser.add_argument("name", nargs="?", help="of a sweep, or its run's id; without one: those there were lately")
    name = parser.parse_args().name
    try:
        if not PREFECT_API_URL.value():
            raise Refusal("which cluster? Set PREFECT_API_URL, or `prefect config set PREFECT_API_URL=...`")
        if name is None:
            Console().print(_reached(lambda client: listed(client, recent(client))))
            return
        run = find(_reached(recent), name)
        sys.exit(0 if follow(run.id, run.name) else 1)
    except Refusal as refusal:
        sys.exit(f"watch: {refusal}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
