"""What has to run for a set of points: stages that points share run once."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flows.core.repository import Repository
from stages.core.running.pipeline import Stage


class Wish(Protocol):
    """A point before its commit was asked; `sets` without seed and fold, as in `dvc exp run -S`."""

    @property
    def row(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def fold(self) -> int | None: ...

    @property
    def sets(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Asked:
    """A point as its commit understands it; `keys` are of the wanted stages, in dvc.yaml's order."""

    name: str
    row: str
    seed: int
    fold: int | None
    digest: str
    sets: tuple[str, ...]
    params_text: str
    keys: dict[str, str]


@dataclass(frozen=True)
class Job:
    """Stages that one worker runs one after the other, for all the points that ask for these very keys."""

    key: str
    stages: tuple[str, ...]
    needs: frozenset[str]
    points: tuple[str, ...]
    pool: str


def expand(repository: Repository, rev: str, sweep: str, points: Sequence[Wish], targets: Sequence[str]) -> list[Asked]:
    """In the points' order; points that come to the same parameters share a name, `<sweep>-<digest>`."""
    raise NotImplementedError


def jobs(stages: Mapping[str, Stage], asked: Sequence[Asked], done: Container[str], apart: bool) -> list[Job]:
    """Each after those it needs; with `apart`, one for each stage. `stages` are those of `truth.stages`."""
    raise NotImplementedError
