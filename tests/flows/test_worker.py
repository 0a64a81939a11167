"""Each device has one worker, which is started again once nothing is left on it, and is asked for nothing when full."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightvision import worker
from lightvision.host import Host, take
from stages.core.running import devices
from stages.core.running.errors import Busy, Refusal


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("LIGHTVISION_HOST_FOLDER", str(tmp_path))
    monkeypatch.setenv("LIGHTVISION_MIN_FREE_GB", "0")
    return Host.here()


@pytest.fixture
def place(host: Host) -> Iterator[worker.Place]:
    place = worker.place(host, "gpu1", "pool", 1, 1, "1")
    yield place
    if place.child:
        place.child.kill()
        place.child.wait()
    os.close(place.lock)


@pytest.fixture
def supervisor(host: Host, place: worker.Place, monkeypatch: pytest.MonkeyPatch) -> worker.Supervisor:
    """Of one worker, which does nothing."""
    monkeypatch.setattr(
        worker.Supervisor,
        "_start",
        lambda self, one: subprocess.Popen(["sleep", "60"], pass_fds=(one.lock,)),
    )
    return worker.Supervisor(host, [place])


def test_gpus_are_named_once_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 2,GPU-7")
    assert worker.gpus("all") == ["0", "2", "GPU-7"]
    assert worker.gpus("2,0") == ["2", "0"]
    for wrong in ("1", "0,0", "", "x"):
        with pytest.raises(Refusal, match="each of 0,2,GPU-7 at most once"):
            worker.gpus(wrong)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(Refusal, match="--slots"):
        worker.gpus("all")


def test_a_worker_knows_its_device_and_its_share_of_the_machine(
    host: Host, place: worker.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert place.environment[devices.LOCK] == str(host.folder / "locks/gpu1.device")
    monkeypatch.setattr(worker.processes, "cores", lambda: 9)
    shares = {n: worker.place(host, f"cpu{n}", "pool", 1, n).environment["OMP_NUM_THREADS"] for n in (2, 4, 20)}
    assert shares == {2: "4", 4: "2", 20: "1"}


def test_a_device_has_one_worker_even_after_its_supervisor_died(host: Host, supervisor: worker.Supervisor) -> None:
    supervisor._look_at(supervisor._places[0])
    for held in (supervisor._places[0].lock,):
        os.close(held)
        supervisor._places[0].lock = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(Refusal, match="another worker has gpu1"):
        worker.place(host, "gpu1", "pool", 1, 1)


def test_one_that_died_is_started_again_once_its_device_is_free(
    host: Host, supervisor: worker.Supervisor, place: worker.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor._look_at(place)
    first = place.child
    assert first
    first.kill()
    first.wait()
    left = take(host.lock("gpu1.device"))
    assert left is not None
    supervisor._look_at(place)
    assert place.child is None
    assert place.due > time.monotonic()  # not at once
    place.due = 0
    for _ in range(2):
        supervisor._look_at(place)
        assert place.child is None
    os.close(left)
    supervisor._look_at(place)
    assert place.child
    assert capsys.readouterr().out.splitlines() == [
        "lightvision worker: gpu1: the worker ended with status -9; again in 4 s",
        "lightvision worker: gpu1: something is still at work there; waiting for its end",
    ]


def test_a_full_disk_stops_the_idle_and_is_said_once(
    supervisor: worker.Supervisor,
    place: worker.Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def look() -> bool:
        supervisor._look_at_the_disk()
        supervisor._look_at(place)
        return place.child is not None

    assert look()
    monkeypatch.setenv("LIGHTVISION_MIN_FREE_GB", "1e9")
    assert not look()
    assert not look()
    monkeypatch.setenv("LIGHTVISION_MIN_FREE_GB", "0")
    assert look()
    said = [line.partition(": ")[2].rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["no new work until there is more", "work goes on"]


def test_a_device_is_held_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device"
    with devices.held():
        assert not path.exists()
    monkeypatch.setenv(devices.LOCK, str(path))
    with devices.held():
        assert take(path) is None
    other = take(path)
    assert other is not None
    monkeypatch.setattr(devices, "PATIENCE", 0.1)
    with pytest.raises(Busy, match=f"end the process that holds {path}"), devices.held():
        pytest.fail("two on one device")
    os.close(other)


def test_the_next_on_a_device_waits_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "device"
    held = take(path)
    assert held is not None
    code = "from stages.core.running import devices\nwith devices.held(): print('mine', flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {devices.LOCK: str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert "waiting for its end" in process.stderr.readline()
    assert process.poll() is None
    os.close(held)
    assert process.communicate(timeout=10) == ("mine\n", "")
