"""What has to run for a set of points: stages that points share run once."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from flows.core import truth
from flows.core.repository import Repository
from lightvision.attempts import DIGITS
from stages.core.running.errors import Refusal
from stages.core.running.pipeline import Stage

ROOT = Path(__file__).resolve().parents[2]
KEY = 16  # digits of a job's key


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
    wishes = [{"row": one.row, "seed": one.seed, "fold": one.fold, "sets": one.sets} for one in points]
    with tempfile.TemporaryDirectory() as folder:
        repository.write(rev, Path(folder))
        answers = _asked_of(Path(folder), {"points": wishes, "targets": list(targets)})
    wanted = truth.wanted(truth.stages(repository, rev), targets)
    return [_asked(repository, rev, sweep, wish, answer, wanted) for wish, answer in zip(points, answers, strict=True)]


def jobs(stages: Mapping[str, Stage], asked: Sequence[Asked], done: Container[str], apart: bool) -> list[Job]:
    """Each after those it needs; with `apart`, one for each stage. `stages` are those of `truth.stages`.

    Stages are one job where the same points want them, in one pool, at one level. A level is how often pool or points
    change on the way there: what a job needs of another is of a lower level, so no two can wait for each other.
    """
    order = truth.parents(stages)
    wanted: dict[str, _Wanted] = {}
    for one in {one.name: one for one in asked}.values():
        for stage in order:
            if stage in one.keys and one.keys[stage] not in done:
                new = _Wanted(stage, stages[stage].pool, _needed(order[stage], one, wanted))
                wanted.setdefault(one.keys[stage], new).by.append(one.name)
    levels: dict[str, int] = {}
    groups: dict[tuple[int, object], list[str]] = {}
    places = {stage: place for place, stage in enumerate(order)}
    for key, one in sorted(wanted.items(), key=lambda item: places[item[1].stage]):
        levels[key] = max((levels[need] + (wanted[need].crowd != one.crowd) for need in one.needs), default=0)
        groups.setdefault((levels[key], key if apart else one.crowd), []).append(key)
    return _jobs([keys for _, keys in sorted(groups.items(), key=lambda group: group[0][0])], wanted)


def name(keys: Iterable[str]) -> str:
    """A job is known by what it makes."""
    return hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:KEY]


@dataclass(frozen=True)
class _Wanted:
    """A stage with one key, and the points that want it."""

    stage: str
    pool: str
    needs: frozenset[str]
    by: list[str] = field(default_factory=list)

    @cached_property
    def crowd(self) -> tuple[str, ...]:
        """Asked for once all points are there."""
        return (self.pool, *self.by)


def _needed(parents: Iterable[str], one: Asked, wanted: Container[str]) -> frozenset[str]:
    return frozenset(one.keys[name] for name in parents if name in one.keys and one.keys[name] in wanted)


def _jobs(groups: Sequence[Sequence[str]], wanted: Mapping[str, _Wanted]) -> list[Job]:
    names = {key: name(keys) for keys in groups for key in keys}
    return [
        Job(
            key=names[keys[0]],
            stages=tuple(wanted[key].stage for key in keys),
            needs=frozenset(names[need] for key in keys for need in wanted[key].needs) - {names[keys[0]]},
            points=tuple(wanted[keys[0]].by),
            pool=wanted[keys[0]].pool,
        )
        for keys in groups
    ]


def _asked(
    repository: Repository, rev: str, sweep: str, wish: Wish, answer: Mapping[str, Any], wanted: Sequence[str]
) -> Asked:
    keys = truth.keys(repository, rev, answer["params_text"])
    return Asked(
        name=f"{sweep}-{answer['digest'][:DIGITS]}",
        row=wish.row,
        seed=wish.seed,
        fold=wish.fold,
        digest=answer["digest"],
        sets=tuple(answer["sets"]),
        params_text=answer["params_text"],
        keys={name: keys[name] for name in wanted},
    )


def _asked_of(folder: Path, words: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A program of its own, since the commit's `stages` may be others than ours."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "flows.core.expanding", str(folder)],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
    )
    if done.returncode:
        raise RuntimeError(f"the commit's own code cannot read its parameters: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    if "refusal" in answer:
        raise Refusal(answer["refusal"])
    return answer["points"]
