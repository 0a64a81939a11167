"""Each request is counted, timed and logged: one line of JSON, without what the client called its files."""

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .measures import Measures

OTHER = "other"  # whatever path somebody tries


def log(event: str, **facts: Any) -> None:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    print(json.dumps(line), file=sys.stdout, flush=True)


class Watching:
    """Around the whole application, so that what it refuses is counted too."""

    def __init__(self, app: ASGIApp, measures: Measures, paths: Iterable[str]) -> None:
        self._app, self._measures, self._paths = app, measures, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            seconds, path = time.perf_counter() - began, scope["path"] if scope["path"] in self._paths else OTHER
            self._measures.requests.labels(path, str(status)).inc()
            self._measures.seconds.labels(path).observe(seconds)
            log("request", method=scope["method"], path=path, status=status, ms=round(seconds * 1e3, 3))
