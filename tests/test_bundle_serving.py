"""The service as a process of its own, in an environment of its lock alone: forms, overload, abuse, and its end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightvision import bundle
from lightvision.bundles import winner
from lightvision.runs import SHIPPED
from tests import made_bundle
from tests.test_bundle_server import bomb, png

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("uv"), reason="no uv")]

PIXELS = 4_000_000
SETTINGS = {
    "SERVE_PORT": "0",
    "SERVE_REQUESTS": "4",
    "SERVE_PICTURES": "3",
    "SERVE_PIXELS": str(PIXELS),
    "SERVE_UPLOAD_BYTES": "1000000",
    "SERVE_HEADER_SECONDS": "1",
    "SERVE_BODY_SECONDS": "2",
}
MEGABYTES = 300  # that it may hold at its worst, with interpreter and runtime
CLOSED = 0  # the service has answered and gone while the body was still being sent, and urllib does not look
HEAD = "POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\n"


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    port: int
    folder: Path

    def ask(self, body: bytes, kind: str = "image/png") -> tuple[int, dict[str, object]]:
        url, headers = f"http://127.0.0.1:{self.port}/predict", {"Content-Type": kind}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            return CLOSED, {}

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def peak(self) -> float:
        """Megabytes that it ever held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        made_bundle.enter(folder, patch)
        bundle.write("server", winner.given(Path(SHIPPED, "quantized.onnx")), Path("bundle"))
    environment = folder / "environment"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, environment], check=True)
    install = ["uv", "pip", "install", "-q", "--require-hashes", "-r", folder / "bundle" / "requirements.lock"]
    done = subprocess.run([*install, "--python", environment], capture_output=True, text=True)
    if "Failed to fetch" in done.stderr:
        pytest.skip("no package index in reach")
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


@contextmanager
def served(made: Path, **settings: str) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(made.parent / "environment" / "bin" / "python"), "-m", "service"]
    environment = os.environ | SETTINGS | settings | {"SERVE_PORT": str(port)}
    with (made.parent / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=made, env=environment, stdout=log, stderr=log, text=True)
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.1)
            yield Running(process, port, made)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def running(made: Path) -> Iterator[Running]:
    with served(made) as found:
        yield found


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """By name and, if the name has one, file name."""
    body = b"".join(
        b"--edge\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n" + held + b"\r\n"
        for name, held in parts
    )
    return body + b"--edge--\r\n", "multipart/form-data; boundary=edge"


FILE = 'name="pictures"; filename="a.png"'


def test_forms(running: Running) -> None:
    blue = png(colour=(10, 10, 250))
    status, told = running.ask(*form((FILE, png()), (FILE, blue)))
    answers = told["answers"]
    assert isinstance(answers, list)
    assert (status, [one["class"] for one in answers]) == (200, ["red", "blue"])
    assert running.ask(*form(*[(FILE, png())] * 4)) == (413, {"error": "more than 3 pictures in one request"})
    assert running.ask(*form((FILE, png()), (FILE, b"?")))[1] == {
        "error": "picture 1: of no known kind (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM)"
    }
    for broken in (form(('name="text"', b"x")), form(), (b"--edge\r\nnothing", "multipart/form-data; boundary=edge")):
        assert running.ask(*broken)[0] == 400
    assert running.ask(b"--edge", "multipart/form-data")[0] == 400
    assert running.ask(*form((FILE, bytes(900_000)), (FILE, bytes(200_000))))[0] in (413, CLOSED)


def test_overload_is_refused_at_once_and_passes(running: Running) -> None:
    (running.folder / "one.png").write_bytes(png((1500, 1500)))
    command = [sys.executable, str(running.folder / "load.py"), str(running.folder / "one.png"), "--seconds", "3"]
    told = json.loads(subprocess.check_output([*command, "--port", str(running.port), "--clients", "40"]))
    assert set(told["by_status"]) == {"200", "503"}
    assert told["by_status"]["503"] > told["by_status"]["200"] > 3
    assert running.ask(png())[0] == 200
    assert running.peak() < MEGABYTES


def test_slow_clients_are_left_behind(running: Running) -> None:
    """One that never ends its headers, one its second headers, one its body; each sends a byte now and then."""
    answered = f"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n{HEAD}"
    took = [_drip(running, begin) for begin in (HEAD, answered, f"{HEAD}Content-Length: 1000\r\n\r\n")]
    assert [b"408" in answer for _, answer in took] == [False, False, True]
    assert all(0.9 < seconds < limit for (seconds, _), limit in zip(took, (2.5, 2.5, 4.5), strict=True))
    assert running.ask(png())[0] == 200


def _drip(running: Running, begin: str) -> tuple[float, bytes]:
    """Seconds until the service closes, and what it said last."""
    began, said = time.monotonic(), b""
    with running.connect() as connection:
        connection.sendall(begin.encode())
        connection.settimeout(0.2)
        while time.monotonic() - began < 15:
            try:
                received = connection.recv(1000)
                if not received:
                    break
                said = received
            except TimeoutError:
                try:
                    connection.sendall(b"x")
                except OSError:
                    break
            except ConnectionError:
                break
    return time.monotonic() - began, said


def test_abuse_takes_no_more_memory_than_was_said(running: Running) -> None:
    side = int(PIXELS**0.5)
    bodies = [bomb(9_000), bomb(60_000), os.urandom(900_000), png((side, side)), png((side, side))[:-50]]
    found: list[set[int]] = [set() for _ in bodies]

    def hammer(at: int) -> None:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            found[at].add(running.ask(bodies[at])[0])
            found[at] -= {503, CLOSED}

    _together([threading.Thread(target=hammer, args=(at,)) for at in range(len(bodies))])
    assert found == [{413}, {413}, {415}, {200}, {422}]
    with running.connect() as connection:
        connection.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(20):
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
        assert b" 413 " in connection.recv(1000)
    assert running.ask(png())[0] == 200
    assert running.peak() < MEGABYTES


def _together(threads: Sequence[threading.Thread]) -> None:
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def test_the_end_waits_for_what_is_at_work(running: Running) -> None:
    whole = png()
    with running.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: {len(whole)}\r\n\r\n".encode() + whole[:10])
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        connection.sendall(whole[10:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert running.process.wait(10) == 0
    events = [json.loads(line)["event"] for line in (running.folder.parent / "log").read_text().splitlines()]
    assert (events[0], events[-1]) == ("start", "end")


def test_a_wrong_setting_ends_in_one_line(made: Path) -> None:
    command = [str(made.parent / "environment" / "bin" / "python"), "-m", "service"]
    done = subprocess.run(command, cwd=made, env=os.environ | {"SERVE_PRT": "1"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("service: SERVE_PRT: ")
    assert len(done.stderr.splitlines()) == 1
