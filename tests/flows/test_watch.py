"""A sweep as a terminal shows it: until it ends, whatever becomes of the server, and no longer."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from rich.console import Console

from flows import leaderboard, viewing, watch
from flows.core.hands import Stand
from flows.core.standings import Summary
from flows.leaderboard import Leaderboard
from flows.showing import HOST
from flows.viewing import AtWork, View
from stages.core.running.errors import Refusal
from tests.flows.made_sweep import MadeSweep

RUN = UUID(int=1)


class Server:
    """Answers with one thing after the other; a coordinator's board and jobs are as it was told."""

    def __init__(self, *answers: State | Exception) -> None:
        self.answers = list(answers)
        self.summaries = [Summary(running=2)]
        self.rows: list[dict[str, str]] = []
        self.jobs: list[FlowRun] = []
        self.progress: list[Any] = []

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *told: object) -> None:
        pass

    def read_flow_run(self, run: UUID) -> FlowRun:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return FlowRun(flow_id=uuid4(), state=answer)

    def read_flow_runs(self, **wanted: Any) -> list[FlowRun]:
        return self.jobs

    def read_artifacts(self, artifact_filter: Any, sort: Any) -> list[Any]:
        if artifact_filter.type.any_ == ["progress"]:
            return self.progress
        summary = self.summaries.pop(0) if len(self.summaries) > 1 else self.summaries[0]
        facts = leaderboard.told_to_watch(summary)
        return [SimpleNamespace(key="sweep-s", data=json.dumps(self.rows), metadata_=facts)]


def state(kind: StateType, message: str = "", ago: float = 0.0) -> State:
    return State(type=kind, message=message, timestamp=datetime.now(UTC) - timedelta(seconds=ago))


def refused(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://there")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL", 0.0)


def serve(monkeypatch: pytest.MonkeyPatch, *answers: State | Exception) -> Server:
    made = Server(*answers)
    monkeypatch.setattr(watch, "get_client", lambda sync_client: made)
    return made


def test_a_pipe_gets_a_line_for_each_change(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    running = state(StateType.RUNNING)
    server = serve(monkeypatch, running, running, running, state(StateType.COMPLETED, "well done"))
    server.summaries = [Summary(running=2, pace=3.0), Summary(running=2, pace=2.5), Summary(finished=1, running=1)]
    assert watch.follow(RUN, "s")
    assert capsys.readouterr().out.splitlines() == [
        "s: running, 2 running of 2 points",
        "s: running, 1 finished, 1 running of 2 points",
        "s: completed, 1 finished, 1 waiting of 2 points",  # nobody is at work when it is over
        "well done",
    ]


def test_who_failed_is_told_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    serve(monkeypatch, state(StateType.FAILED, "Flow run encountered an exception: RuntimeError: 1 of 2 points failed"))
    assert not watch.follow(RUN, "s")
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 points failed"


def test_a_server_that_is_away_ends_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    away = httpx.ConnectError("nobody there")
    serve(monkeypatch, away, state(StateType.RUNNING), away, away, refused(503), state(StateType.COMPLETED))
    assert watch.follow(RUN, "s")
    said = capsys.readouterr().out.splitlines()
    assert [("does not answer" in line, "503" in line) for line in said] == [
        (True, False),
        (False, False),
        (True, False),
        (False, True),
        (False, False),
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [(refused(401), "PREFECT_API_AUTH_STRING"), (ObjectNotFound(refused(404)), "knows no run")],
)
def test_what_will_not_be_better_is_said(monkeypatch: pytest.MonkeyPatch, answer: Exception, said: str) -> None:
    serve(monkeypatch, answer)
    with pytest.raises(Refusal, match=said):
        watch.follow(RUN, "s")


def test_a_coordinator_that_crashed_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    again = state(StateType.CRASHED), state(StateType.SCHEDULED), state(StateType.RUNNING), state(StateType.COMPLETED)
    server = serve(monkeypatch, *again)
    assert watch.follow(RUN, "s")
    assert not server.answers
    serve(monkeypatch, state(StateType.CRASHED, ago=watch.ANEW + 1))
    assert not watch.follow(RUN, "s")


def test_who_leaves_is_told_how_to_end_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    serve(monkeypatch, KeyboardInterrupt())  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(Server, "read_flow_run", lambda *told: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as ended:
        watch.follow(RUN, "s")
    assert ended.value.code == watch.INTERRUPTED
    assert f"prefect flow-run cancel {RUN}" in capsys.readouterr().out


def test_jobs_are_shown_with_the_stage_they_are_at(monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch, state(StateType.RUNNING))
    job = FlowRun(flow_id=uuid4(), name="s-1: prune", labels={HOST: "h2"}, idempotency_key="abc/3")
    server.jobs = [job.model_copy(update={"start_time": datetime.now(UTC) - timedelta(minutes=7)})]
    server.progress = [
        SimpleNamespace(flow_run_id=job.id, data=30.0, description="prune: epoch 3/10\nmore"),
        SimpleNamespace(flow_run_id=job.id, data=100.0, description="train_teacher: epoch 10/10"),
    ]
    server.rows = [{"point": "a", "state": "finished"}, {"point": "b", "state": "waiting"}]
    view = next(watch.views(RUN, "s"))
    assert view.jobs == [AtWork("s-1: prune", "h2", "3", 30.0, "prune: epoch 3/10", "7 min")]
    assert [row["point"] for row in view.best] == ["a"]


def test_a_narrow_terminal_shows_it_and_reads_no_markup() -> None:
    row = {"point": "s-1", "what": "seed 1 " * 20, "val accuracy": "97.0 %", "bytes": "1,000", "milliseconds": "0.09"}
    job = AtWork("s-[red]2: prune", "h2", "3", 30.0, "prune: epoch 3/10", "7 min")
    view = View("s", "running", link="http://there", summary=Summary(3, 1, 6, 0), jobs=[job] * 50, best=[row] * 50)
    console = Console(file=io.StringIO(), width=80)
    console.print(viewing.drawn(view))
    lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    assert sum("s-[red]2: prune" in line for line in lines) == viewing.TOP
    assert sum("97.0" in line and "1,000" in line for line in lines) == viewing.TOP
    assert any("3 of 10" in line for line in lines)
    assert len(lines) < 35


def runs(*names: str) -> Sequence[FlowRun]:
    return [FlowRun(flow_id=uuid4(), name=name) for name in names]


def test_names_are_those_of_the_newest() -> None:
    there = runs("b", "a", "b", "studies/bits.yaml")
    assert watch.find(there, "b") is there[0]
    assert watch.find(there, str(there[2].id)) is there[2]
    assert watch.find(there, "bits") is there[3]
    with pytest.raises(Refusal, match=r"no sweep c; it knows b, a, studies/bits.yaml$"):
        watch.find(there, "c")


def test_without_a_server_it_is_said_which_setting_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["watch", "s"])
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(SystemExit, match="PREFECT_API_URL"):
        watch.main()


@pytest.fixture
def _server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_server")
def test_a_real_server_keeps_two_sweeps_of_one_name_apart() -> None:
    @flow(name="sweep")
    def sweep(reason: str) -> UUID:
        made, board = MadeSweep(3), Leaderboard("s")
        board.show(made.coordinator)
        made.stands(1, Stand.FAILED, reason)
        board.show(made.coordinator, last=True)
        return UUID(flow_run.id)

    first, second = sweep("one"), sweep("two")
    assert leaderboard.reasons(first) == {"s-1": "one"}
    assert leaderboard.reasons(second) == {"s-1": "two"}
    (*_, view) = watch.views(first, "s")
    assert view.completed
    assert view.summary.counts == "2 waiting, 1 failed of 3 points"
