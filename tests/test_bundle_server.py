"""The service: what it answers, what it refuses and how, and what it does when more is asked than it can bear."""

import asyncio
import importlib
import io
import itertools
import json
import struct
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from lightvision import bundle
from lightvision.bundles import winner
from lightvision.bundles.server.service import settings as defaults
from lightvision.runs import SHIPPED
from tests import made_bundle, made_files

RED = (250, 10, 10)
SMALL = {"SERVE_UPLOAD_BYTES": "20000", "SERVE_PIXELS": "10000", "SERVE_PICTURES": "4", "SERVE_REQUESTS": "2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle, whose modules are imported as they lie in it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        made_bundle.enter(folder, patch)
        bundle.write("server", winner.given(Path(SHIPPED, "quantized.onnx")), Path("bundle"))
        patch.syspath_prepend(str(folder / "bundle"))
        yield folder / "bundle"


def part(name: str) -> ModuleType:
    return importlib.import_module(f"service.{name}")


@pytest.fixture(scope="module")
def client(made: Path) -> Iterator[TestClient]:
    facts = json.loads((made / "bundle.json").read_text())
    app = part("app").create(made / "model.onnx", facts, part("settings").read(SMALL))
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def png(size: tuple[int, int] = (20, 12), colour: tuple[int, int, int] = RED) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def bomb(side: int) -> bytes:
    """A picture of some hundred bytes that promises so many pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(1000))))
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, held in chunks:
        whole += struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))
    return whole


def ask(client: TestClient, body: Any, kind: str = "image/png", **words: Any) -> Any:
    return client.post("/predict", content=body, headers={"Content-Type": kind}, params=words)


def test_a_picture_is_answered(client: TestClient) -> None:
    told = ask(client, png(), top=3).json()
    [expected] = made_files.expected(RED)
    assert told["model"] == "quantized"
    assert told["answers"][0]["class"] == "red"
    found = [one["probability"] for one in told["answers"][0]["top"]]
    assert found == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"", "image/png", 400, "empty"),
        (png(), "text/plain", 415, "text/plain"),
        (png(), "", 415, "without a type"),
        (b"GIF89", "image/gif", 415, "of no known kind"),
        (png()[:-30], "image/png", 422, "truncated"),
        (png((101, 100)), "image/png", 413, "101 x 100 pixels"),
        (bomb(9_000), "image/png", 413, "9000 x 9000 pixels"),
        (bomb(12_000), "image/png", 413, "more than 10,000 pixels"),
        (bomb(60_000), "image/png", 413, "more than 10,000 pixels"),
        (bytes(20_001), "image/png", 413, "20,000 bytes"),
        (iter([bytes(10_000), bytes(10_001)]), "image/png", 413, "20,000 bytes"),
    ],
    ids=itertools.count(),
)
def test_what_is_not_answered_is_said_in_one_line(
    body: Any, kind: str, status: int, said: str, client: TestClient
) -> None:
    answer = ask(client, body, kind)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_other_paths_and_parameters(client: TestClient) -> None:
    assert ask(client, png(), top=4).json()["error"].startswith("top: ")
    assert ask(client, png(), top=4).status_code == 422
    assert client.get("/nothing").json() == {"error": "Not Found"}
    assert client.get("/health").json() == {"live": True, "ready": True}
    assert client.get("/").json()["limits"] == {"upload_bytes": 20_000, "pixels": 10_000, "pictures": 4}
    assert "/predict" in client.get("/openapi.json").json()["paths"]


def test_what_happened_is_counted_and_logged_without_names(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    def counted(line: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next((one.rpartition(" ")[2] for one in lines if one.startswith(line)), 0))

    before = counted('lightvision_requests_total{path="/predict",status="415"}')
    ask(client, b"secret", "image/png")
    client.get("/somebody/secret.png")
    assert counted('lightvision_requests_total{path="/predict",status="415"}') == before + 1
    assert counted("lightvision_batch_pictures_count") >= 1
    logged = capsys.readouterr().out
    assert {json.loads(line)["event"] for line in logged.splitlines()} == {"request"}
    assert '"status": 415' in logged
    assert "secret" not in logged


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SERVE_PRT": "1"}, "SERVE_PRT"),
        ({"SERVE_PORT": "70000"}, "SERVE_PORT"),
        ({"SERVE_BATCH": "0"}, "SERVE_BATCH"),
        ({"SERVE_BODY_SECONDS": "nan"}, "SERVE_BODY_SECONDS"),
        ({"SERVE_QUEUE": "3"}, "no room"),
    ],
)
def test_settings_are_strict(environment: dict[str, str], said: str) -> None:
    with pytest.raises(defaults.Misconfigured, match=said):
        defaults.read(environment)
    assert defaults.read({"OTHER": "1"}) == defaults.Settings()


@pytest.mark.usefixtures("made")
def test_a_body_is_held_once() -> None:
    """Each piece is made as it comes, as from a socket."""

    class Request:
        async def stream(self) -> AsyncIterator[bytes]:
            for _ in range(64):
                yield bytes(2**16)

    async def ask() -> tuple[bytes, int]:
        tracemalloc.start()
        try:
            [body] = await part("uploads")._whole(Request(), defaults.Settings())
            return body, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    part("uploads")
    body, most = asyncio.run(ask())
    assert len(body) == 2**22
    assert most < 1.5 * 2**22


class Network:
    """Answers each picture by its first pixel, once it may."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may = threading.Event()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert self.may.wait(4)
        if images.max() == 255:
            raise ValueError("a bad picture")
        self.sizes.append(len(images))
        return images[:, :1, 0, 0].astype(np.float32)


def picture(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


@pytest.mark.usefixtures("made")
def test_pictures_of_many_requests_go_together_and_come_back_to_who_asked() -> None:
    network, seen = Network(), list[int]()

    async def go() -> None:
        batcher = part("batching").Batcher(network, defaults.Settings(batch=4, queue=16), seen.append)
        batcher.start()
        asked = [asyncio.create_task(batcher.ask([picture(3 * at + of) for of in range(3)])) for at in range(5)]
        await asyncio.sleep(0.05)
        network.may.set()
        for at, answers in enumerate(await asyncio.gather(*asked)):
            assert [int(answer[0]) for answer in answers] == [3 * at, 3 * at + 1, 3 * at + 2]
        await batcher.close()

    asyncio.run(go())
    assert sum(network.sizes) == 15
    assert max(network.sizes) == 4
    assert seen == network.sizes


@pytest.mark.usefixtures("made")
def test_a_full_queue_refuses_at_once_and_closing_answers_who_waits() -> None:
    network = Network()

    async def go() -> None:
        batcher = part("batching").Batcher(network, defaults.Settings(batch=1, queue=16), lambda _: None)
        batcher.start()
        waiting = [asyncio.create_task(batcher.ask([picture(0)]))]
        await asyncio.sleep(0.05)  # it is at work
        waiting += [asyncio.create_task(batcher.ask([picture(at)])) for at in range(1, 17)]
        await asyncio.sleep(0.05)
        with pytest.raises(part("problems").Problem, match="come again") as refused:
            await asyncio.wait_for(batcher.ask([picture(99)]), 2)
        assert refused.value.status == 503
        waiting[5].cancel()
        closing = asyncio.create_task(batcher.close())
        network.may.set()
        await closing
        assert [task.done() for task in waiting] == [True] * 17
        assert [int(task.result()[0][0]) for task in waiting if task is not waiting[5]] == [*range(5), *range(6, 17)]

    asyncio.run(go())
    assert sum(network.sizes) == 16  # who went away is not asked about


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("milliseconds", "sizes"), [(0.0, [1, 1]), (1000.0, [2])])
def test_an_idle_network_waits_for_more_only_where_it_is_told_to(milliseconds: float, sizes: list[int]) -> None:
    network = Network()
    network.may.set()

    async def go() -> None:
        settings = defaults.Settings(batch=2, wait_milliseconds=milliseconds)
        batcher = part("batching").Batcher(network, settings, lambda _: None)
        batcher.start()
        first = asyncio.create_task(batcher.ask([picture(1)]))
        await asyncio.sleep(0.05)
        await batcher.ask([picture(2)])
        await first
        await batcher.close()

    asyncio.run(go())
    assert network.sizes == sizes


@pytest.mark.usefixtures("made")
def test_a_network_that_fails_fails_its_batch_alone() -> None:
    network = Network()
    network.may.set()

    async def go() -> None:
        batcher = part("batching").Batcher(network, defaults.Settings(batch=1), lambda _: None)
        batcher.start()
        with pytest.raises(ValueError, match="bad picture"):
            await batcher.ask([picture(255)])
        [answer] = await batcher.ask([picture(7)])
        assert answer[0] == 7
        await batcher.close()

    asyncio.run(go())


def test_the_readme_tells_every_setting(made: Path) -> None:
    text = (made / "README.md").read_text()
    assert all(
        f"| `SERVE_{name.upper()}` | {field.default} |" in text
        for name, field in defaults.Settings.model_fields.items()
    )


def test_the_container_takes_what_the_bundle_has(made: Path) -> None:
    lines = (made / "Dockerfile").read_text().splitlines()
    copied = [
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    ]
    assert all((made / name).exists() for name in copied)
    assert {"model.onnx", "bundle.json", "service", "lightvision_runner", "requirements.lock"} <= set(copied)
    assert [line for line in lines if line.startswith("USER ")][-1] != "USER root"
    assert "://" not in (made / "requirements.lock").read_text()
