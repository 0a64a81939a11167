"""`python -m service`: one process, which ends after what is at work when it is told to."""

# pyright: reportMissingImports=false

import json
import signal
import sys
from pathlib import Path

import uvicorn
from lightvision_runner.errors import Unusable

from . import settings
from .app import create
from .connections import Impatient
from .watching import log

HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    asked = settings.read()
    facts = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    app = create(HERE / "model.onnx", {name: facts[name] for name in ("name", "model", "classes", "accuracy")}, asked)
    Impatient.header_seconds = asked.header_seconds
    log("start", **asked.model_dump())
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn's own acts, and raises the signal again when all is done
    uvicorn.run(
        app,
        host=asked.host,
        port=asked.port,
        http=Impatient,
        ws="none",
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=asked.connections,
        timeout_keep_alive=asked.idle_seconds,
        timeout_graceful_shutdown=asked.drain_seconds,
    )
    log("end")


if __name__ == "__main__":
    try:
        main()
    except (settings.Misconfigured, Unusable) as problem:
        sys.exit(f"service: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
