"""Files that arrive in a folder, each once it has stopped growing."""

# pyright: reportMissingImports=false

import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lightvision_runner import finding
from lightvision_runner.errors import Unusable

PAUSE = 0.25  # seconds between two looks; a file that is the same in both has arrived
Look = dict[Path, tuple[int, int]]  # of each file its bytes and when it was written to


def arrivals(folder: Path) -> Iterator[str]:
    """Without end. What is there already is not answered, what is written anew is answered again."""
    if not folder.is_dir():
        raise Unusable(f"{folder} is no folder that could be watched")
    answered = before = look(folder)
    while True:
        time.sleep(PAUSE)
        now = look(folder)
        arrived = [path for path, state in now.items() if before.get(path) == state != answered.get(path)]
        yield from (str(path) for path in sorted(arrived, key=lambda path: now[path][1]))
        answered = {path: state for path, state in answered.items() if path in now} | {
            path: now[path] for path in arrived
        }
        before = now


def look(folder: Path) -> Look:
    """A file may go while it is looked at, and a link may lead nowhere."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise Unusable(f"{folder} cannot be looked into: {error.strerror}") from error
    found: Look = {}
    for path in paths:
        if finding.is_picture(path) and not finding.hidden(path.name):
            with suppress(OSError):
                told = path.stat()
                if stat.S_ISREG(told.st_mode):
                    found[path] = (told.st_size, told.st_mtime_ns)
    return found
