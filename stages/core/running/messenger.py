"""Starts the process that tells MLflow, and forgets it: no server, however broken, can slow or fail a stage."""

import os
import subprocess
import sys
from pathlib import Path

from stages.core.running import journal, progress, sources

COMMAND = "python -m stages.core.tracking"


def wanted() -> bool:
    return os.environ.get("LIGHTVISION_TRACKING") != "off"


def ensure() -> None:
    """See to it that somebody forwards journals; it costs milliseconds and never fails."""
    if not wanted():
        return
    home = journal.home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        _start(home)
        unsent = home / "unsent.txt"
        if unsent.exists():
            progress.note(unsent.read_text(encoding="utf-8").strip())
    except OSError as error:
        progress.note(f"MLflow is not told of this: {error}")


def _start(home: Path) -> None:
    """Through a shell that ends at once: the forwarder is nobody's child, and holds none of the stage's pipes."""
    log = home / "forwarding.log"
    if log.exists() and log.stat().st_size > 1_000_000:
        log.unlink()
    command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, *COMMAND.split()[1:], "--linger"]
    path = os.pathsep.join(filter(None, (str(sources.ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("ab") as stream:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=home.parent,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
            check=False,
        )
