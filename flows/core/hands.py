"""Those who do a coordinator's jobs, wherever they are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from flows.core.work import Work


class Stand(StrEnum):
    """How a job stands, as far as anybody knows: git alone tells whether it has a result."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"  # it says that its result is in git
    FAILED = "failed"  # a stage said no: it would say so again
    LOST = "lost"  # its process, host, disk or network: somebody else may do it
    CANCELLED = "cancelled"


OVER = frozenset({Stand.ENDED, Stand.FAILED, Stand.LOST, Stand.CANCELLED})


@dataclass(frozen=True)
class Seen:
    stand: Stand
    reason: str = ""
    host: str = ""


@dataclass(frozen=True)
class Ticket:
    """A job that somebody was asked to do; `name` is the same for all who ask for the same attempt."""

    id: str
    seen: Seen


class Hands(Protocol):
    """Asking twice for one name gives the same ticket. `look` leaves out what it cannot see at this moment."""

    def ask(self, work: Work, name: str, pool: str) -> Ticket: ...

    def look(self, ids: Collection[str]) -> Mapping[str, Seen]: ...

    def cancel(self, ids: Collection[str]) -> None: ...
