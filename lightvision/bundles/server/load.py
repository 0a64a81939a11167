#!/usr/bin/env python3
"""Asks a running service as fast as so many clients can, each waiting for its answer, and says what came of it."""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

BOUNDARY = "lightvision-load"
REST = 0.1  # seconds, after a connection that was not taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("pictures", nargs="+", type=Path, help="one is sent as the body, several as a form")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    try:
        found = asyncio.run(loaded(asked.host, asked.port, request(asked.pictures), asked.clients, asked.seconds))
    except OSError as error:
        sys.exit(f"load.py: {error}")
    print(json.dumps({"clients": asked.clients, "pictures_per_request": len(asked.pictures)} | found))
    return 0


def request(paths: Sequence[Path]) -> bytes:
    if len(paths) == 1:
        kind, body = "image/png", paths[0].read_bytes()
    else:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="pictures"; filename="p"\r\n\r\n'.encode()
            + path.read_bytes()
            + b"\r\n"
            for path in paths
        ]
        body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    head = f"POST /predict HTTP/1.1\r\nHost: load\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def loaded(host: str, port: int, request: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Latency is of what was answered by 200: a refusal is quick by design."""
    began = time.perf_counter()
    told = await asyncio.gather(*(client(host, port, request, began + seconds) for _ in range(clients)))
    took = time.perf_counter() - began
    answers = [answer for one in told for answer in one]
    good = sorted(milliseconds for status, milliseconds in answers if status == 200)
    found: dict[str, Any] = {
        "seconds": round(took, 2),
        "answered_per_second": round(len(good) / took, 1),
        "by_status": dict(sorted(Counter(str(status) for status, _ in answers).items())),
    }
    if good:
        found |= {
            f"p{share}_ms": round(good[min(len(good) - 1, len(good) * share // 100)], 2) for share in (50, 95, 99)
        }
    return found


async def client(host: str, port: int, request: bytes, until: float) -> list[tuple[int, float]]:
    """One connection, opened anew where the service closes it; status 0 is a connection that broke."""
    answers: list[tuple[int, float]] = []
    while time.perf_counter() < until:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            answers.append((0, 0.0))
            await asyncio.sleep(REST)
            continue
        with closing(writer):
            closes = False
            while not closes and (began := time.perf_counter()) < until:
                try:
                    writer.write(request)
                    status, closes = await answer(reader)
                except (OSError, EOFError):
                    status, closes = 0, True
                answers.append((status, (time.perf_counter() - began) * 1e3))
    return answers


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    await reader.readexactly(int(fields["content-length"]))
    return int(head.split(" ", 2)[1]), fields.get("connection") == "close"


if __name__ == "__main__":
    sys.exit(main())
