"""Journals on their way to MLflow.

Whatever MLflow does, absent, broken, slow or out of reach, happens here, and the journals wait for the next attempt.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stages.core.running import files
from stages.core.running.messenger import COMMAND
from stages.core.tracking.outbox import Journal, Sent
from stages.core.tracking.store import Child, Store  # now: the clone that this code is of may be gone later

POLL = 0.5  # seconds
ATTEMPTS = 3
BACK_OFF = 30.0  # seconds at most between attempts while a stage is at work


@dataclass(frozen=True)
class Trouble:
    """Why a journal could not be sent, how often, and when to try again."""

    reason: str
    attempts: int
    again: float


class Forwarder:
    """Sends what waits, as it comes, until nothing comes any more."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._store: Store | None = None
        self._troubles: dict[str, Trouble] = {}
        self._sent: set[str] = set()
        self._ended: dict[str, Child] = {}

    def follow(self, linger: float) -> str:
        """Returns what to tell a person."""
        last = time.monotonic()
        while True:
            journals = self._journals()
            live = any(entry.live for entry in journals)
            waiting = [entry for entry in journals if entry.waits and (live or self._has_hope(entry))]
            due = [entry for entry in waiting if self._is_due(entry)]
            if due:
                self._send_all(due)
                last = time.monotonic()
            elif not live and not waiting and time.monotonic() - last >= linger:
                self._seal()
                return self._report()
            time.sleep(POLL)

    def _journals(self) -> list[Journal]:
        """In the order of their beginning, since a stage looks for those before it; done ones are cleared away."""
        folders = sorted((self._home / "runs").glob("*-*"), key=lambda folder: folder.name.rpartition("-")[2])
        found = []
        for folder in folders:
            try:
                entry = Journal(folder)
                if entry.done and not entry.waits and not entry.live:
                    entry.clear()
                else:
                    found.append(entry)
            except OSError as error:
                print(f"{folder.name}: {error}", flush=True)
        return found

    def _has_hope(self, entry: Journal) -> bool:
        trouble = self._troubles.get(entry.folder.name)
        return trouble is None or trouble.attempts < ATTEMPTS

    def _is_due(self, entry: Journal) -> bool:
        trouble = self._troubles.get(entry.folder.name)
        return trouble is None or time.monotonic() >= trouble.again

    def _send_all(self, due: Sequence[Journal]) -> None:
        """A journal that MLflow does not take must not hold up the others; no MLflow holds up all."""
        for index, entry in enumerate(due):
            reason = _attempt(self._connect)
            if reason:
                for late in due[index:]:
                    self._defer(late, reason)
                break
            reason = _attempt(partial(self._send, entry))
            if reason:
                self._store = None
                self._defer(entry, reason)
            else:
                self._troubles.pop(entry.folder.name, None)
                self._sent.add(entry.folder.name)
        self._report()

    def _connect(self) -> Store:
        self._store = self._store or Store()
        return self._store

    def _send(self, entry: Journal) -> None:
        store = self._connect()
        child = store.child(entry.folder)
        sent = entry.sent if child and child.run_id == entry.sent.run_id else Sent()  # else a new store: all again
        for events, offset in entry.events(sent.offset):
            child = store.send(entry.folder, child, events)
            sent = Sent(child.run_id if child else "", offset)
            sent.save(entry.folder)
        if entry.vanished:
            if child:
                store.end(child, "killed", "its process is gone", entry.silent_since)
            replace(sent, vanished=True).save(entry.folder)
        if child:
            self._ended[child.parent_id] = child

    def _seal(self) -> None:
        """DVC writes dvc.lock once a stage has ended, and by now it did."""
        for child in self._ended.values():
            _attempt(partial(self._connect().lock, child))

    def _defer(self, entry: Journal, reason: str) -> None:
        known = self._troubles.get(entry.folder.name)
        attempts = known.attempts + 1 if known else 1
        again = time.monotonic() + min(BACK_OFF, 2.0 ** (attempts - 1))
        self._troubles[entry.folder.name] = Trouble(reason, attempts, again)

    def _report(self) -> str:
        """For whoever looks next: the person at this command, or the next stage, through a file."""
        unsent = self._home / "unsent.txt"
        if self._troubles:
            reason = next(reversed(self._troubles.values())).reason
            count = "1 run waits" if len(self._troubles) == 1 else f"{len(self._troubles)} runs wait"
            text = f"MLflow: {count} to be sent ({reason}); with the next stage, or now with `{COMMAND}`"
            files.write_text(unsent, text + "\n")
            return text
        unsent.unlink(missing_ok=True)
        if not self._sent:
            return "MLflow: nothing to send"
        return "MLflow: 1 run sent" if len(self._sent) == 1 else f"MLflow: {len(self._sent)} runs sent"


def _attempt(act: Callable[[], object]) -> str:
    """Why it failed, or nothing."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - MLflow, its database and its server may raise anything; journals wait
        traceback.print_exc()
        return root_cause(error)
    return ""


def root_cause(error: BaseException) -> str:
    """MLflow wraps what happened in words of its own; a refused connection or a locked database says more."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
