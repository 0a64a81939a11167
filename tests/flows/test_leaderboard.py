"""What people see of a sweep while it runs: its order, its words, its pace, and nothing of test."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from flows import leaderboard
from flows.core import pages, standings
from flows.core.hands import Stand
from flows.core.pages import Pages
from flows.core.standings import Pace, Summary, Worth
from flows.leaderboard import Leaderboard
from tests.flows.made_sweep import MadeSweep

TEST = 0.123  # what no table may show


def shipped(accuracy: float, size: int) -> dict[str, Any]:
    timing = {"median": 0.0899685, "low": 0.089713, "high": 0.1428895, "noisy": True}
    file = {"bytes": size, "accuracy": TEST, "one_thread": timing}
    return {
        "export": {"quantized": {"accuracy": accuracy, "bytes": size}, "teacher": {"accuracy": 1.0, "bytes": 9}},
        "benchmark": {"files": {"quantized": file, "teacher": file}},
    }


class Server:
    """Prefect's artifacts, as its client gives and takes them."""

    def __init__(self) -> None:
        self.kept: dict[UUID, dict[str, Any]] = {}
        self.away = False

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *told: object) -> None:
        pass

    def create_artifact(self, artifact: Any) -> Any:
        if self.away:
            raise httpx.ConnectError("nobody there")
        made = uuid4()
        self.kept[made] = artifact.model_dump()
        return SimpleNamespace(id=made)

    def update_artifact(self, made: UUID, artifact: Any) -> None:
        if self.away:
            raise httpx.ConnectError("nobody there")
        self.kept[made] |= artifact.model_dump(exclude_unset=True)

    def table(self, key: str) -> list[dict[str, str]]:
        (found,) = (one for one in self.kept.values() if one["key"] == key)
        return json.loads(found["data"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(leaderboard, "get_client", lambda sync_client: made)
    monkeypatch.setattr(leaderboard, "get_run_logger", lambda: SimpleNamespace(warning=lambda text: None))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


def test_points_stand_as_people_look_for_them(server: Server) -> None:
    sweep = MadeSweep(8)
    sweep.finish(0, **shipped(0.95, 2000))
    sweep.finish(1, **shipped(0.97, 9000))
    sweep.finish(2, **shipped(0.97, 1000))
    sweep.finish(3)
    sweep.stands(4, Stand.FAILED, "prune: nothing is left to cut")
    sweep.stands(5, Stand.LOST, "power cut")
    sweep.stands(5, Stand.RUNNING, host="h2")
    Leaderboard("s").show(sweep.coordinator)
    table = server.table("sweep-s")
    assert [row["point"] for row in table] == ["s-2", "s-1", "s-0", "s-3", "s-5", "s-6", "s-7", "s-4"]
    by_name = {row["point"]: row for row in table}
    assert by_name["s-2"]["what"] == "seed 2, prune.sparsity=0.2"  # what all points share is said nowhere
    assert by_name["s-2"]["bytes"] == "1,000"
    assert by_name["s-2"]["val accuracy"].startswith("97.0")
    assert by_name["s-2"]["milliseconds"] == "0.0900 [0.0897, 0.143] noisy"
    assert by_name["s-3"]["val accuracy"] == by_name["s-3"]["bytes"] == by_name["s-3"]["milliseconds"] == ""
    assert by_name["s-5"]["state"] == "running prune to benchmark on h2 (attempt 2)"
    assert by_name["s-6"]["state"] == "waiting for a worker"
    assert by_name["s-4"]["state"] == "failed: prune: nothing is left to cut"
    assert str(TEST) not in json.dumps(table)
    assert f"{TEST:.1%}"[:-1] not in json.dumps(table)


def test_only_what_the_point_itself_made_counts() -> None:
    files = {
        "export": shipped(0.99, 5)["export"],
        "quantize": {"val_accuracy": 0.98},
        "prune": {"val_accuracy": 0.97},
        "evaluate": {"quantized": {"accuracy": TEST}},
        "benchmark": shipped(0.99, 5)["benchmark"],
    }

    def read(path: str) -> bytes:
        return json.dumps(files[path.removeprefix("metrics/").removesuffix(".json")]).encode()

    assert standings.worth(read, ["prune"]) == Worth(0.97)
    assert standings.worth(read, ["prune", "quantize"]) == Worth(0.98)
    assert standings.worth(read, ["prune", "evaluate"]) == Worth(0.97)
    assert standings.worth(read, ["evaluate", "benchmark"]).accuracy is None
    assert standings.worth(read, ["prune", "quantize", "export"]) == Worth(0.99, 5)


@pytest.mark.parametrize(
    "content", [None, b"", b"not json", b"[]", b'{"val_accuracy": NaN}', b'{"val_accuracy": "high"}', b"3"]
)
def test_metrics_that_are_none_are_left_out(content: bytes | None) -> None:
    assert standings.worth(lambda path: content, ["prune", "export", "benchmark"]) == Worth()


def test_metrics_are_read_once(server: Server) -> None:
    sweep = MadeSweep(2)
    board = Leaderboard("s")
    sweep.finish(0, **shipped(0.95, 2000))
    board.show(sweep.coordinator, last=True)
    before = sweep.git.reads
    assert before
    board.show(sweep.coordinator, last=True)
    assert sweep.git.reads == before


def test_the_pace_is_of_jobs_that_ended_while_somebody_looked() -> None:
    sweep = MadeSweep(10)
    for number in range(3):
        sweep.finish(number)
    pace = Pace()
    pace.see(sweep.coordinator.done, 1000.0)
    assert pace.hourly(1600.0) == 0
    for number in range(3, 6):
        sweep.finish(number)
    sweep.stands(6, Stand.FAILED, "no")
    pace.see(sweep.coordinator.done, 1300.0)
    found = standings.standings(sweep.coordinator, lambda name, point: Worth())
    summary = standings.summary(sweep.coordinator, found, pace, 1600.0)
    assert (summary.finished, summary.waiting, summary.failed, summary.all) == (6, 3, 1, 10)
    assert summary.pace == pytest.approx(3 / 600 * 3600)  # jobs in ten minutes
    assert summary.left == pytest.approx(3 * 200)
    assert summary.told == "6 finished, 3 waiting, 1 failed of 10 points; 18 jobs an hour, about 10 min left"


def test_nobody_waits_for_what_follows_a_failure() -> None:
    sweep, pace = MadeSweep(1, apart=True), Pace()
    sweep.stands(0, Stand.FAILED, "no")
    pace.see(0, 0.0)
    pace.see(1, 100.0)
    assert len(sweep.coordinator.makers) == 2  # export and benchmark, which nobody will be asked for
    assert standings.summary(sweep.coordinator, [], pace, 100.0).left == 0


def test_the_pace_forgets() -> None:
    pace = Pace()
    pace.see(0, 0.0)
    pace.see(100, 1000.0)
    for second in range(1, standings.LATELY + 1):
        pace.see(100 + second, 1000.0 + 36 * second)
    assert pace.hourly(1000.0 + 36 * standings.LATELY) == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "told"), [(4.4, "4 s"), (125, "2 min"), (5400, "1 h 30 min"), (36_001, "10 h"), (360_000, "100 h")]
)
def test_durations_are_said_roughly(seconds: float, told: str) -> None:
    assert standings.duration(seconds) == told


def test_what_is_told_to_the_terminal_arrives() -> None:
    told = Summary(1_234_567, 2, 3, 4, 5.125, 61.5)
    assert leaderboard.heard(leaderboard.told_to_watch(told)) == told
    assert leaderboard.heard({}) == Summary()


def test_a_long_table_is_cut_and_no_failure_is(server: Server) -> None:
    sweep = MadeSweep(leaderboard.ROWS + 20)
    for number in range(10):
        sweep.stands(number, Stand.FAILED, f"reason {number} {'long ' * 100}")
    board = Leaderboard("S_s")
    board.show(sweep.coordinator, last=True)
    assert len(server.table("sweep-s-s")) == leaderboard.ROWS
    assert {row["point"] for row in server.table("sweep-s-s")} & {f"s-{number}" for number in range(10)} == set()
    failed = {row["point"]: row["reason"] for row in server.table("failed-s-s")}
    assert failed == {f"s-{number}": f"reason {number} {'long ' * 100}" for number in range(10)}
    board.show(sweep.coordinator, last=True)
    assert len(server.kept) == 2  # the same two, brought up to date


def test_it_tells_only_what_changed_and_not_too_often(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(leaderboard, "time", SimpleNamespace(monotonic=lambda: now[0]))
    updates: list[float] = []
    monkeypatch.setattr(server, "update_artifact", lambda *told: updates.append(now[0]))
    sweep, board = MadeSweep(2), Leaderboard("s")
    for _ in range(4):
        board.show(sweep.coordinator)
        now[0] += leaderboard.PAUSE / 2
    sweep.finish(0)
    board.show(sweep.coordinator)
    sweep.finish(1)
    board.show(sweep.coordinator)
    assert updates == [120.0]
    now[0] += leaderboard.PAUSE + 1
    board.show(sweep.coordinator)
    assert updates == [120.0, now[0]]
    now[0] += leaderboard.AGAIN + 1
    board.show(sweep.coordinator)
    assert len(updates) == 3


def test_a_server_that_is_away_fails_nothing(server: Server) -> None:
    sweep, board = MadeSweep(2), Leaderboard("s")
    server.away = True
    board.show(sweep.coordinator, last=True)
    server.away = False
    board.show(sweep.coordinator, last=True)
    assert len(server.table("sweep-s")) == 2


# ------------------------------------------------------------------------------------------------------ MLflow's pages


class Mlflow:
    """What its REST interface says, as slowly or as wrongly as a test wants."""

    def __init__(self) -> None:
        self.runs = {"s-0": "abc"}
        self.held = threading.Event()
        self.held.set()
        self.garbage: bytes | None = None
        self.asked: list[str] = []
        self.address = ""

    def answer(self, path: str, told: bytes) -> bytes:
        self.held.wait(10)
        self.asked.append(path)
        if self.garbage is not None:
            return self.garbage
        if "get-by-name" in path:
            return json.dumps({"experiment": {"experiment_id": "7"}}).encode()
        name = json.loads(told)["filter"].split("'")[1]
        return json.dumps({"runs": [{"info": {"run_id": self.runs[name]}}]} if name in self.runs else {}).encode()


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    made = Mlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(b"")

        def do_POST(self) -> None:
            self._say(self.rfile.read(int(self.headers["Content-Length"])))

        def _say(self, told: bytes) -> None:
            said = made.answer(self.path, told)
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        made.address = f"http://127.0.0.1:{web.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{made.address}/".replace("//", "//me:secret@", 1))
        monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        yield made
        made.held.set()
        web.shutdown()


def test_pages_are_found_by_the_points_names(mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAUSE", 0.0)
    found = Pages()
    found.look(["s-0", "s-1"])
    found.wait(5)
    assert found.of("s-0") == f"{mlflow.address}/#/experiments/7/runs/abc"
    assert found.of("s-1") == ""
    mlflow.runs["s-1"] = "def"
    mlflow.asked.clear()
    found.look(["s-0", "s-1"])
    found.wait(5)
    assert found.of("s-1").endswith("/runs/def")
    assert len(mlflow.asked) == 2  # nobody asks for what is known


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[]", b'{"experiment": 3}', b"<html>"])
def test_whatever_it_answers_there_is_no_page(mlflow: Mlflow, garbage: bytes) -> None:
    mlflow.garbage = garbage
    found = Pages()
    found.look(["s-0"])
    found.wait(5)
    assert mlflow.asked
    assert found.of("s-0") == ""


def test_a_server_that_hangs_holds_up_nobody(mlflow: Mlflow) -> None:
    mlflow.held.clear()
    found = Pages()
    began = time.monotonic()
    found.look(["s-0"])
    found.look(["s-0"])
    found.wait(0.05)
    assert time.monotonic() - began < 1
    assert found.of("s-0") == ""


def test_a_file_is_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setattr(threading, "Thread", lambda **told: pytest.fail("somebody is asked"))
    found = Pages()
    found.look(["s-0"])
    assert found.of("s-0") == ""
