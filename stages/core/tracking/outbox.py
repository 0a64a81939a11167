"""Journals as the forwarder finds them: what is in one, how much of it was sent, and whether more will come."""

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from stages.core.running import files
from stages.core.tracking import events
from stages.core.tracking.events import Event

LINES = 200  # sent between two notes of how far we are
FORGET = 7 * 24 * 3600  # seconds; unfinished work that nobody came back to


@dataclass(frozen=True)
class Sent:
    """How far a journal was sent, kept beside it for the forwarder that goes on after this one."""

    run_id: str = ""
    offset: int = 0
    vanished: bool = False  # MLflow knows that the stage's process is no more

    @classmethod
    def load(cls, folder: Path) -> "Sent":
        try:
            return cls(**files.read_json(folder / "sent.json"))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()  # all is sent again, which changes nothing

    def save(self, folder: Path) -> None:
        files.write_json(folder / "sent.json", asdict(self))


class Journal:
    """One journal as it is at this moment; half a line at its end is left for later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.jsonl"
        self.sent = Sent.load(folder)
        text = self.path.read_bytes() if self.path.exists() else b""
        self.text = text[: text.rfind(b"\n") + 1]
        self._last = self.text.rstrip().rpartition(b"\n")[2]
        writer = "none" if self._ended or not text else self._writer()
        self.live = writer == "here"
        self.vanished = writer == "gone" and self.path.stat().st_size == len(text)  # its last word was not since then

    @property
    def waits(self) -> bool:
        return len(self.text) > self.sent.offset or (self.vanished and not self.sent.vanished)

    @property
    def done(self) -> bool:
        """Finished, or so old that nobody will go on with it, or cleared away while somebody looked at it."""
        if not self.path.exists() and any(self.folder.glob("provenance.json*")):
            return True
        changed = (self.path if self.path.exists() else self.folder).stat().st_mtime
        return (self._ended and b'"status": "finished"' in self._last) or time.time() - changed > FORGET

    @property
    def silent_since(self) -> int:
        """Milliseconds, of the last line's own clock: a file's is coarser, and would put it before earlier stages."""
        try:
            return int(json.loads(self._last)["time"] * 1000)
        except (ValueError, TypeError, KeyError):
            return int(self.path.stat().st_mtime * 1000)

    @property
    def _ended(self) -> bool:
        return self._last.startswith(b'{"event": "end"')

    def _writer(self) -> str:
        """Where the process is that started last; its number may be another's by now, but its lock is not."""
        line = self.text[max(self.text.rfind(b'{"event": "start"'), 0) :].partition(b"\n")[0]
        try:
            start = json.loads(line)
            process, host = int(start["pid"]), start.get("host") or platform.node()
        except (ValueError, TypeError, KeyError):
            return "here" if _held(self.folder) else "gone"
        if host != platform.node():
            return "elsewhere"
        return "here" if _exists(process) and _held(self.folder) else "gone"

    def events(self, offset: int) -> Iterator[tuple[list[Event], int]]:
        """Some events at a time, and how far they reach; a line that is no event is passed over, and said so."""
        lines = self.text[offset:].splitlines(keepends=True)
        for begin in range(0, len(lines), LINES):
            found = []
            for line in lines[begin : begin + LINES]:
                offset += len(line)
                try:
                    found.append(events.parse(line))
                except ValueError as error:
                    print(f"{self.folder.name}: not an event, skipped: {line[:200]!r}: {error}", flush=True)
            yield found, offset

    def clear(self) -> None:
        """Remove the folder, unless a stage has just come back to it."""
        try:
            with FileLock(self.folder / "lock", timeout=0):
                files.remove(self.folder)
        except Timeout:
            pass


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _held(folder: Path) -> bool:
    """Asked only of a process that exists: while the lock is tried, a stage that starts could not have it."""
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True
