"""A headless Chromium, driven by its DevTools protocol."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60.0


class Page:
    """One tab. What the page logs, and what it is refused, is kept."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.asked = 0
        self.said: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **given: Any) -> dict[str, Any]:
        self.asked += 1
        self.connection.send(json.dumps({"id": self.asked, "method": method, "params": given}))
        while True:
            message = json.loads(self.connection.recv(timeout=PATIENCE))
            if message.get("id") == self.asked:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.said.append(message)

    def evaluate(self, expression: str) -> Any:
        """As the page itself would be let."""
        answer = self.tell(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, (expression, self.evaluate("document.body.innerText"))
            time.sleep(0.05)
        return value

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """As a person does by the dialog of a file input."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    def complaints(self) -> list[str]:
        """Errors of the console, broken promises, and what a policy forbade."""
        logged = [one["params"] for one in self.said if one.get("method") == "Log.entryAdded"]
        thrown = [one["params"] for one in self.said if one.get("method") == "Runtime.exceptionThrown"]
        return [one["entry"]["text"] for one in logged if one["entry"]["level"] == "error"] + [
            one["exceptionDetails"]["text"] for one in thrown
        ]

    def addresses(self) -> list[str]:
        """All that the page asked for."""
        requests = [one["params"] for one in self.said if one.get("method") == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in requests]


@contextmanager
def opened(address: str, folder: Path) -> Iterator[Page]:
    assert CHROMIUM
    options = [*QUIET, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen([CHROMIUM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            with connect(_tab(folder), max_size=2**27, open_timeout=PATIENCE) as connection:
                page = Page(connection)
                page.tell("Page.navigate", url=address)
                yield page
        finally:
            browser.terminate()


def _tab(folder: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    port = folder / "DevToolsActivePort"
    while not (port.is_file() and port.read_text().count("\n")):
        assert time.monotonic() < deadline, "Chromium does not start"
        time.sleep(0.05)
    listing = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json/list"
    with urllib.request.urlopen(listing, timeout=PATIENCE) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """By the standard library's server: the least that a page can ask for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
